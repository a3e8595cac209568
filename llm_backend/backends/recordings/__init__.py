"""Recordings: files of clients as samples, decoded in a child process.

This module imports nothing, because that process starts with it.

recording.py     samples of a client's file, while they are decoded
audio_reader.py  the process that decodes: FFmpeg's libraries
pauses.py        audio without speech, where windows of a transcript end
"""
