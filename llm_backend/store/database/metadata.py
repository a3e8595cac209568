"""The `MetaData` of all tables, which the migrations are checked against, and the table that the
database itself uses."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# SQLite numbers rows by itself only for a primary key declared INTEGER, which has 64 bits there.
SEQUENCE = BigInteger().with_variant(Integer, "sqlite")

# Counters: `administration` counts changes of administered objects, `file_bytes` is the total of
# files and parts of uploads, and `write_probes` is changed by checks of the database's health.
counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
