"""The examples of the docstrings run without the Hub, as the tests do, from the folder of this file."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported
