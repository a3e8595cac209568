"""The worker process and the API process's side of it: start, supervision, connections.

In the worker process:
worker.py              the main loop
model_loading.py       its model, with the engine of its kind
connection_server.py   its connections
outbox.py              when its events are sent
tokenizer_thread.py    long texts, tokenized beside the passes

In the process that owns the engine, and in those that use it:
lifecycle.py           state of an engine
supervisor.py          starts, watches and restarts the worker
restart_policy.py      delays between restarts
watchdog.py            detection of a worker that hangs
device_list.py         devices of the build, listed in a process of its own
exit_status.py         causes of a worker's end
worker_log.py          the worker's standard error as log lines
socket_path.py         the Unix socket for other processes
remote_engine.py       the engine of another process
engine_connection.py   a connection to the worker, and its calls
poison_requests.py     quarantine of commands that crash the worker
request_timing.py      queue, prefill and decode times of a request
"""
