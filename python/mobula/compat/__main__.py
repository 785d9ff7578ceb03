"""Print the directory that makes ``import ray`` give this package: ``PYTHONPATH=$(python -m mobula.compat)``."""

from mobula.compat import PATH

if __name__ == "__main__":
    print(PATH)
