"""raydistill sets how well an LLM teacher can be distilled, by reinforcement fine-tuning with one signed knob."""

__version__ = "0.1.0"
