"""The examples of the docstrings run without the Hub, as the tests do; from this folder, where the small model is."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported
