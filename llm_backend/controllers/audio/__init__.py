"""Audio: texts read aloud, names of voices, and recordings as text.

speech.py              texts read aloud
voices.py              names of voices
transcription.py       recordings as text
transcript_formats.py  transcripts as JSON and subtitles
"""
