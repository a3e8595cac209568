"""Jobs as rows: SQL statements, each function part of a unit of work on a connection.

On PostgreSQL a claim skips rows that other transactions claim (`SKIP LOCKED`); on SQLite there is
one writer at a time.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, insert, select, update
from sqlalchemy import delete as delete_from

from llm_backend.durations import DAY_S
from llm_backend.json_types import JsonMapping
from llm_backend.store.database.named_lock import lock_name
from llm_backend.store.errors import LeaseLost
from llm_backend.store.jobs.job import Job, JobConcurrencyLimits, JobCounts, NewJob
from llm_backend.store.statement_parts import statement_parts
from llm_backend.store.tables.jobs import jobs

AFFINITY_TIMEOUT_S = DAY_S  # after which a due job is claimed despite its affinity


def add(connection: Connection, added: Iterable[NewJob], *, now: float) -> None:
    """Inserts jobs; they are claimed in this order after the commit."""
    rows = [
        {
            "kind": job.kind,
            "subject": job.subject,
            "details": dict(job.details),
            "due_at": now + job.delay_s,
            "attempts": 0,
            "affinity": job.affinity,
        }
        for job in added
    ]
    for part in statement_parts(rows):
        connection.execute(insert(jobs), part)


def claim(
    connection: Connection,
    kind: str,
    leases: Sequence[str],
    *,
    affinities: Collection[str],
    limits: JobConcurrencyLimits | None,
    now: float,
    until: float,
) -> Sequence[Job]:
    """Claims at most one job for each lease, the longest due first: jobs with one of the
    `affinities` or without any, and jobs with another one that have been due for
    `AFFINITY_TIMEOUT_S`.
    `limits` bounds the running jobs of a subject and of an owner. Sets the `due_at` of a claimed
    job to `until`, at which its lease ends."""
    is_allowed = jobs.c.affinity.is_(None) | (jobs.c.due_at <= now - AFFINITY_TIMEOUT_S)
    if affinities:
        is_allowed |= jobs.c.affinity.in_(affinities)
    due = select(jobs).where(jobs.c.kind == kind, jobs.c.due_at <= now, is_allowed)
    if limits is not None:
        lock_name(connection, f"claims of {kind}")
        due = due.where(_is_within_limits(kind, limits, now=now))
    first = due.order_by(jobs.c.due_at, jobs.c.seq).limit(len(leases))
    rows = connection.execute(first.with_for_update(skip_locked=True)).all()
    claimed = []
    for row, lease in zip(rows, leases, strict=False):
        values = {"lease": lease, "due_at": until, "attempts": row.attempts + 1}
        connection.execute(update(jobs).where(jobs.c.seq == row.seq).values(values))
        claimed.append(
            Job(
                seq=row.seq,
                kind=row.kind,
                subject=row.subject,
                details=row.details,
                attempt=row.attempts + 1,
                lease=lease,
                affinity=row.affinity,
            )
        )
    return claimed


def renew(connection: Connection, leases: Collection[str], until: float) -> None:
    """Extends these leases, except lost ones."""
    is_held = _lock_jobs(connection, jobs.c.lease.in_(leases))
    connection.execute(update(jobs).where(is_held).values(due_at=until))


def lock(connection: Connection, job: Job) -> None:
    """Locks the job until the transaction ends. Raises `LeaseLost`."""
    query = select(jobs.c.seq).where(_is_held(job)).with_for_update()
    if connection.execute(query).first() is None:
        raise LeaseLost(job.subject)


def reset_attempts(connection: Connection, job: Job) -> None:
    """Locks the job, whose attempt has made progress, and sets its count of attempts to 1. Raises
    `LeaseLost`."""
    _update_held(connection, job, {"attempts": 1})


def finish(connection: Connection, job: Job) -> None:
    """Deletes the job, which is done. Raises `LeaseLost`."""
    if connection.execute(delete_from(jobs).where(_is_held(job))).rowcount != 1:
        raise LeaseLost(job.subject)


def release(connection: Connection, job: Job, *, due_at: float, counts: bool) -> None:
    """Releases the job, which is due again at `due_at`; the attempt counts if `counts`. Does
    nothing if the lease is lost."""
    attempts = jobs.c.attempts if counts else jobs.c.attempts - 1
    values = {"lease": None, "due_at": due_at, "attempts": attempts}
    connection.execute(update(jobs).where(_is_held(job)).values(values))


def reassign(connection: Connection, job: Job, affinity: str, *, now: float) -> None:
    """Releases the job to processes with this affinity; the attempt does not count.
    Raises `LeaseLost`."""
    _update_held(connection, job, {**_uncounted_release(now), "affinity": affinity})


def change_kind(connection: Connection, job: Job, kind: str, *, now: float) -> None:
    """Releases the job as one of another kind; the attempt does not count. Raises `LeaseLost`."""
    _update_held(connection, job, {**_uncounted_release(now), "kind": kind})


def remove(connection: Connection, kind: str, subject: str) -> None:
    """Deletes the jobs about this subject. A running one loses its lease."""
    connection.execute(delete_from(jobs).where(_lock_jobs(connection, is_about(kind, subject))))


def remove_all(
    connection: Connection, kinds: Collection[str], subjects: Collection[str] | Select[tuple[str]]
) -> None:
    """Deletes the jobs of these kinds about these subjects, in few statements. Running ones lose
    their leases."""
    found = select(jobs.c.seq).where(jobs.c.kind.in_(kinds), jobs.c.subject.in_(subjects))
    seqs = connection.scalars(found.order_by(jobs.c.seq).with_for_update()).all()
    for part in statement_parts(seqs):
        connection.execute(delete_from(jobs).where(jobs.c.seq.in_(part)))


def remove_not_running(connection: Connection, kind: str, subject: str, *, now: float) -> None:
    """Deletes the jobs about this subject that have no lease, or an expired one."""
    idle = and_(is_about(kind, subject), jobs.c.lease.is_(None) | (jobs.c.due_at <= now))
    connection.execute(delete_from(jobs).where(_lock_jobs(connection, idle)))


def remove_unleased(connection: Connection, kind: str, subject: str) -> int:
    """Deletes the jobs about this subject that have no lease, and returns their number. Skips jobs
    that other transactions lock, so that a caller with locks of its own does not wait."""
    unleased = select(jobs.c.seq).where(is_about(kind, subject), jobs.c.lease.is_(None))
    seqs = connection.scalars(unleased.with_for_update(skip_locked=True)).all()
    return connection.execute(delete_from(jobs).where(jobs.c.seq.in_(seqs))).rowcount


def postpone_unleased(
    connection: Connection,
    kind: str,
    subject: str,
    *,
    until: float,
    condition: ColumnElement[bool] | None = None,
) -> None:
    """Postpones the jobs about this subject that have no lease, and meet the condition if it is
    given."""
    unleased = is_about(kind, subject) & jobs.c.lease.is_(None) & (jobs.c.due_at < until)
    if condition is not None:
        unleased &= condition
    connection.execute(update(jobs).where(_lock_jobs(connection, unleased)).values(due_at=until))


def are_any(connection: Connection, kind: str, subject: str) -> bool:
    """True if there are jobs about this subject."""
    query = select(jobs.c.seq).where(is_about(kind, subject)).limit(1)
    return connection.execute(query).first() is not None


def details(connection: Connection, kind: str, subject: str) -> list[JsonMapping]:
    """Returns the details of the jobs about this subject, in the order in which they were added."""
    query = select(jobs.c.details).where(is_about(kind, subject)).order_by(jobs.c.seq)
    return list(connection.scalars(query))


def count(connection: Connection, kind: str, limit: int, *, subject: str | None = None) -> int:
    """Returns the number of jobs of a kind, or of those about one subject, counted up to
    `limit`."""
    is_counted = jobs.c.kind == kind if subject is None else is_about(kind, subject)
    counted = select(jobs.c.seq).where(is_counted).limit(limit).subquery()
    return int(connection.scalar(select(func.count()).select_from(counted)) or 0)


def due_times_and_held_leases(
    connection: Connection, kinds: Collection[str], leases: Collection[str]
) -> tuple[dict[str, float], set[str]]:
    """Returns the time at which the first job of each kind is due, if there is one; and those of
    these leases that are not lost."""
    due_at: dict[str, float] = {}
    for kind in kinds:
        first = connection.scalar(select(func.min(jobs.c.due_at)).where(jobs.c.kind == kind))
        if first is not None:
            due_at[kind] = first
    held = select(jobs.c.lease).where(jobs.c.lease.in_(leases))
    return due_at, {str(lease) for lease in connection.scalars(held)} if leases else set()


def backlog(connection: Connection, *, now: float) -> Sequence[JobCounts]:
    """Returns the counts of the jobs of each kind."""
    is_due, is_leased = jobs.c.due_at <= now, jobs.c.lease.is_not(None)
    is_claimable = case((is_due, 1), else_=0)  # or its lease has expired
    is_running = case((is_leased & ~is_due, 1), else_=0)
    first = func.min(case((is_due, jobs.c.due_at)))
    counted = select(
        jobs.c.kind,
        func.count().label("number"),
        func.sum(is_claimable).label("due"),
        func.sum(is_running).label("running"),
        first.label("first_due_at"),
    )
    return [
        JobCounts(
            kind=row.kind,
            due=int(row.due),
            running=int(row.running),
            later=row.number - int(row.due) - int(row.running),
            lag_s=0.0 if row.first_due_at is None else now - row.first_due_at,
        )
        for row in connection.execute(counted.group_by(jobs.c.kind))
    ]


def leases(connection: Connection) -> Sequence[str]:
    """Returns all leases, expired or not."""
    held = select(jobs.c.lease).where(jobs.c.lease.is_not(None))
    return [lease for lease in connection.scalars(held) if lease is not None]


def release_leases(connection: Connection, leases: Collection[str], *, now: float) -> None:
    """Releases these leases of dead processes, whose jobs are due then. The attempts count."""
    held = _lock_jobs(connection, jobs.c.lease.in_(leases))
    connection.execute(update(jobs).where(held).values(lease=None, due_at=now))


def is_about(kind: str, subject: str) -> ColumnElement[bool]:
    """Returns the condition of the jobs of a kind about one subject."""
    return and_(jobs.c.kind == kind, jobs.c.subject == subject)


def _is_within_limits(
    kind: str, limits: JobConcurrencyLimits, *, now: float
) -> ColumnElement[bool]:
    """Returns the condition that a job is within the share of its subject, and then within that of
    its owner: running jobs count first, then those that have been due the longest."""
    is_due = jobs.c.due_at <= now
    is_due_number = case((is_due, 1), else_=0)
    order = (is_due_number, jobs.c.due_at, jobs.c.seq)
    rank = func.row_number().over(partition_by=jobs.c.subject, order_by=order)
    candidates = select(jobs.c.seq, jobs.c.subject, jobs.c.due_at, is_due_number.label("is_due"))
    is_running_or_due = jobs.c.lease.is_not(None) | is_due
    ranked = candidates.add_columns(rank.label("rank")).where(
        jobs.c.kind == kind, is_running_or_due
    )
    of_subject, owners = ranked.subquery(), limits.subjects
    order_of_subject = (of_subject.c.is_due, of_subject.c.due_at, of_subject.c.seq)
    rank = func.row_number().over(partition_by=owners.c.owner, order_by=order_of_subject)
    owned = of_subject.outerjoin(owners, owners.c.id == of_subject.c.subject)
    within = select(of_subject.c.seq, rank.label("rank")).select_from(owned)
    of_owner = within.where(of_subject.c.rank <= limits.per_subject).subquery()
    return jobs.c.seq.in_(select(of_owner.c.seq).where(of_owner.c.rank <= limits.per_owner))


def _lock_jobs(connection: Connection, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Locks the jobs that meet the condition until the transaction ends, in one order for all
    transactions; returns a condition that the locked rows meet."""
    seqs = select(jobs.c.seq).where(condition).order_by(jobs.c.seq).with_for_update()
    return jobs.c.seq.in_(connection.scalars(seqs).all())


def _update_held(connection: Connection, job: Job, values: Mapping[str, object]) -> None:
    """Changes the job. Raises `LeaseLost`."""
    if connection.execute(update(jobs).where(_is_held(job)).values(dict(values))).rowcount != 1:
        raise LeaseLost(job.subject)


def _uncounted_release(now: float) -> Mapping[str, object]:
    """Returns the values of a job that is due now, and whose last attempt does not count."""
    return {"lease": None, "due_at": now, "attempts": jobs.c.attempts - 1}


def _is_held(job: Job) -> ColumnElement[bool]:
    return and_(jobs.c.seq == job.seq, jobs.c.lease == job.lease)
