"""Audio: texts read aloud by a local voice, and the names of voices."""
