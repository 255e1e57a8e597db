"""What a detector's boxes are worth: figures and pictures from ground truth and predictions."""
