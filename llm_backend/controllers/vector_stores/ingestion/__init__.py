"""Ingestion of files into vector stores.

new_files.py         validation of the files that a request adds
ingestion_worker.py  background jobs: extract, chunk, embed, index; removal from the index
completeness.py      mark of points whose file is not completely ingested
"""
