"""The documents of the demo that the tests look at."""

from pathlib import Path

MODEL = Path(__file__).parents[2] / "models" / "st-l0-mini"
# Harmless: it would only say that it ran.
INJECTION = (
    '<img src="/nowhere" onerror="document.title=\'injected\'"><script>document.title="injected"</script>'
    "<b id='bold'>Red fish</b> & bread"
)
DOCUMENTS = {
    "files": "How to read a file from the disk, line by line.",
    "lists": "Sort a list of numbers in place.",
    "server": "Open a connection to a server and read its answer.",
    INJECTION[:60]: INJECTION,
    "long": "A red fish swims in the river. " * 40,
}
