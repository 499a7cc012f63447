"""catchment: copy what people have in their clouds, SaaS tools, databases and files into their own database."""

__version__ = "0.1.0"
