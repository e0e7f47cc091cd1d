"""``python -m st_l0`` and ``torchrun -m st_l0``."""

from st_l0.cli import main

if __name__ == "__main__":
    main()
