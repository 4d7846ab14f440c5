"""Why distillation fails: the traps, which distort what a student learns, and the symptoms, which they show as."""
