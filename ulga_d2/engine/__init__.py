"""What turns a config into a run: data order, optimizer, checkpoints, the loop, the launcher."""

import warnings

# What detectron2 and fvcore make torch say at each start; nothing a user of ours can act on.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release", UserWarning)
