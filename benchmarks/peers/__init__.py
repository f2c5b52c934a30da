"""What `benchmarks/speed.py` measures: ptv2kit beside the ways to train that its users could take instead."""

import logging
import os

# PEFT imports bitsandbytes, which says which optional kernels it has not found; nothing here is quantized.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# DeepSpeed, where it is installed, says on stdout, where the JSON goes, that it looked for a GPU; the CPU is measured.
os.environ.setdefault("DS_ACCELERATOR", "cpu")
