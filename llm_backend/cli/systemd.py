"""`llm-backend systemd`: a hardened unit that runs this installation as a service."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from llm_backend.cli.exit import exit_with_error
from llm_backend.cli.options import Config
from llm_backend.settings import Settings, load_settings

_HIDDEN = ("/home", "/root", "/run/user")  # folders that ProtectHome=yes hides
_SHUTDOWN_S = 20  # for engines and database, after the running streams

_UNIT = """\
# Written by `llm-backend systemd`. As root:
#   llm-backend systemd > /etc/systemd/system/llm-backend.service
#   systemctl daemon-reload && systemctl enable --now llm-backend
# Settings are lines NAME=VALUE of /etc/llm-backend/environment (mode 0600), for example
# LLM_BACKEND_HOST, LLM_BACKEND_API_KEYS and OPENAI_API_KEY. Model files lie in
# /var/lib/llm-backend/models or in any folder outside of /home that all users may read.

[Unit]
Description=llm-backend, a server that speaks OpenAI's API
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={command}
EnvironmentFile=-/etc/llm-backend/environment
Environment=LLM_BACKEND_DATA_DIR=%S/llm-backend
DynamicUser=yes
StateDirectory=llm-backend
StateDirectoryMode=0700
WorkingDirectory=%S/llm-backend
UMask=0077
Restart=on-failure
RestartSec=2
# The server ends its engines itself, after the streams that run.
KillMode=mixed
TimeoutStopSec={stop_s}
# The server restarts an engine that the kernel kills when memory runs out.
OOMPolicy=continue
LimitNOFILE=65536

# Files: read-only except the state; the devices of a GPU need, in a drop-in (`systemctl edit`),
# PrivateDevices=no, DeviceAllow=char-nvidia* rw and MemoryDenyWriteExecute=no (untried).
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed

# Kernel; ProcSubset=pid would hide /proc/meminfo, by which the server fits models into memory.
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

# Rights
AmbientCapabilities=
CapabilityBoundingSet=
KeyringMode=private
NoNewPrivileges=yes
PrivateMounts=yes
PrivateUsers=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX

[Install]
WantedBy=multi-user.target
"""


def systemd(
    program: Annotated[
        Path | None,
        typer.Option(help="Path of the installed program; this installation's if unset."),
    ] = None,
    config: Config = None,
) -> None:
    """Print a hardened systemd unit for this installation.

    The service runs as a dynamic user; its data folder is /var/lib/llm-backend.
    """
    installed = Path(sys.prefix) / "bin" / "llm-backend"
    interpreter = [] if program else [Path(sys.base_prefix)]
    files = [(program or installed).absolute(), *([config.absolute()] if config else [])]
    for file in (*files, *interpreter):
        if any(map(file.is_relative_to, _HIDDEN)):
            exit_with_error(
                f"A service cannot read {file}, because it lies in a home folder: install the "
                "package elsewhere, for example into a virtual environment in /opt/llm-backend."
            )
    print(systemd_unit(load_settings({}, config), *files), end="")


def systemd_unit(settings: Settings, program: Path, config: Path | None = None) -> str:
    """Return the text of the unit; a stop may take the time that the settings allow."""
    words = [str(program), "serve", *(["--config", str(config)] if config else [])]
    command = shlex.join(words).replace("%", "%%")
    stop_s = settings.shutdown_delay_s + settings.shutdown_grace_s + _SHUTDOWN_S
    return _UNIT.format(command=command, stop_s=stop_s)
