"""Audio: texts read aloud, names of voices, and recordings as text.

speech.py              texts read aloud
voices.py              names of voices
sampled_voices.py      cloned voices
voice_consents.py      recorded consents to them
recordings.py          recordings that come in a form
transcription.py       recordings as text
transcript_formats.py  transcripts as JSON and subtitles
"""
