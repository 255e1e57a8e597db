"""Pictures of images and their boxes: marks, contact sheets, and which images to show."""
