"""`python -m catchment`: the command line."""

from catchment.cli.main import main

if __name__ == "__main__":
    main()
