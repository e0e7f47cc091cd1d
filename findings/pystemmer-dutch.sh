#!/usr/bin/env bash
# PyStemmer 3.1.0: "dutch" is another algorithm than in 2.2.0.3, under the same name.
#
# Snowball 3 replaced the Dutch stemmer; the former one is now called "dutch_porter", which 2.2 does not know.
# Lucene 10's Dutch analyzer still has the former one. An index stemmed by one version and queried by the other
# loses words without an error; English changed too, in few words. So: pin the version, or keep stems of some
# probe words beside the index and compare them when it is opened.
#
# Seen: koningen, huizen, brieven, university: 2.2.0.3 koning huiz briev univers; 3.1.0 koon huis brief universiti
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" - "$folder" <<'PYTHON'
import subprocess
import sys
from pathlib import Path

folder = Path(sys.argv[1])
script = (
    "import Stemmer\n"
    "dutch = Stemmer.Stemmer('dutch').stemWords(['koningen', 'huizen', 'brieven'])\n"
    "print(*dutch, Stemmer.Stemmer('english').stemWord('university'))"
)
install = "-m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target".split()
found = []
for version in ("2.2.0.3", "3.1.0"):
    place = folder / version
    subprocess.run([sys.executable, *install, place, f"PyStemmer=={version}"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(place)}, capture_output=True, text=True, check=True
    )
    found.append(done.stdout.strip())
    print(version, found[-1])
assert found == ["koning huiz briev univers", "koon huis brief universiti"]
PYTHON
