"""What runs say: tables, pictures, provenance, one HTML page.

`write_report` is loaded on first use.
"""

__all__ = ["write_report"]


def __getattr__(name):
    if name == "write_report":
        from skal.report.report import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
