"""Images drawn by an image server or a local model, from a text or another image; or
relayed.

create.py    the operations
drawings.py  request bodies as drawings, and files of edits
answers.py   drawn images as the document's answers and events
"""
