"""What `benchmarks/speed.py` measures: ptv2kit beside the ways to train that its users could take instead."""

import logging

# PEFT imports it, and it says which optional kernels it has not found; nothing here is quantized.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
