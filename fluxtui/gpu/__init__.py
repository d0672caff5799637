"""The machine's gauges: NVIDIA GPUs, read in a child process that can be killed, and CPU, memory and disk.

A driver can hang in the kernel, crash, or lose a GPU; none of that reaches the process that asks. Whatever figure is
missing says why. Importing this loads no NVML.
"""

from fluxtui.gpu.host import host_gauges
from fluxtui.gpu.readings import Gpu, Gpus, HostGauges
from fluxtui.gpu.watch import GpuWatch, list_gpus

__all__ = ["Gpu", "GpuWatch", "Gpus", "HostGauges", "host_gauges", "list_gpus"]
