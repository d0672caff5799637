"""The trainer's benches, here too."""

from tests.trainer.conftest import new_bench, pictures, tiny_dev

__all__ = ["new_bench", "pictures", "tiny_dev"]
