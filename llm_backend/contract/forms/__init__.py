"""Streaming multipart forms: fields are validated, files passed on as they arrive.

form.py           form of an operation: fields and one file
multipart.py      parser of multipart/form-data
form_model.py     model of a form that is relayed, read and replaced
form_observer.py  checks of fields of a relayed form
"""
