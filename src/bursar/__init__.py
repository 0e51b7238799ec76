"""One local authority that grants every AI agent its resources, keeps it inside its grant, and explains every decision."""

__version__ = "0.1.0"
