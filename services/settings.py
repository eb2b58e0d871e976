"""Settings of the whole service; the only reader of environment variables.

Every field is set by `XSAM_<GROUP>__<FIELD>`, for example `XSAM_DATABASE__URL` or `XSAM_API__PORT`.
"""

import ipaddress
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from xsam.services.stores.store import StorePlace


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ApiSettings(_Group):
    """The HTTP API."""

    host: str = "127.0.0.1"
    """Address to listen on; loopback unless told otherwise."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8042
    """TCP port; 0 takes a free one."""
    auth: Literal["auto", "token", "none"] = "auto"
    """token: every call needs one. none: whoever reaches the port may do everything; for loopback only. auto: none on
    loopback, token elsewhere."""
    rate_limit_per_s: Annotated[float, Field(gt=0, le=100_000)] = 100.0
    """Requests a second that each token may make in the long run, per API process."""
    rate_limit_burst: Annotated[int, Field(ge=1, le=100_000)] = 400
    """Requests that each token may make at once."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_000_000
    """Larger request bodies are refused."""
    max_streams_per_token: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Event and log streams that each token may hold open, per API process."""
    max_connections: Annotated[int, Field(ge=10, le=1_000_000)] = 2000
    """Connections that an API process takes; further ones are answered 503."""

    @property
    def needs_token(self) -> bool:
        """Whether calls without a token are refused."""
        return self.auth == "token" or (self.auth == "auto" and not is_loopback(self.host))

    @model_validator(mode="after")
    def _open_to_this_machine_only(self) -> Self:
        if self.auth == "none" and not is_loopback(self.host):
            raise ValueError(
                f"api.auth is 'none', but api.host is {self.host!r}, which others may reach; allowed are "
                "api.auth 'token', or a loopback host such as 127.0.0.1"
            )
        return self


class PageSettings(_Group):
    """The page in the browser."""

    enabled: bool = True
    """Whether it is served beside the API."""


class GroupRole(_Group):
    """What the members of a provider's group may do here."""

    team: Annotated[str, Field(min_length=1, max_length=63)]
    role: Literal["viewer", "member", "admin"] = "member"


class SignOnSettings(_Group):
    """Sign-in to the page through an OpenID Connect provider. Tokens go on to work beside it."""

    issuer: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """The provider's address, from which its `/.well-known/openid-configuration` is read; by default there is none."""
    client_id: str = "xsam"
    """What the provider calls this service."""
    client_secret_file: Path | None = None
    """File with the secret the provider gave it; none for a public client, which PKCE alone protects."""
    public_url: Annotated[str, Field(pattern=r"^https?://[^/]+$")] | None = None
    """This service's address as browsers reach it; the provider must allow `<public_url>/sign-in/sso/callback`."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    """What the provider is asked for."""
    user_claim: str = "preferred_username"
    """The claim that becomes the user's name here; what a name can't hold becomes a hyphen."""
    groups_claim: str = "groups"
    """The claim that lists a person's groups."""
    groups: dict[str, tuple[GroupRole, ...]] = {}
    """Roles by group. In the teams named here membership follows the provider at each sign-in."""
    admin_groups: tuple[str, ...] = ()
    """Groups whose members are admins of the service; without any, the provider makes nobody one."""
    adopts_users: bool = False
    """Whether somebody's first sign-in takes over a user of that name who exists already; never an admin of the
    service, so that the one who keeps a token for emergencies can't be taken over."""
    hours: Annotated[float, Field(gt=0, le=168)] = 12.0
    """A sign-in lasts so long at most; then the provider is asked again, who may say something else by then."""

    @model_validator(mode="after")
    def _knows_own_address(self) -> Self:
        if self.issuer is not None and self.public_url is None:
            raise ValueError(
                "sign_on.public_url is missing; with sign_on.issuer it must be this service's address as browsers "
                "reach it, such as https://xsam.example.org"
            )
        return self


class DatabaseSettings(_Group):
    """Where rows live."""

    url: SecretStr | None = None
    """SQLAlchemy URL; by default a SQLite file in the data directory."""
    pool_size: Annotated[int, Field(ge=1, le=200)] = 10
    """Connections that each process keeps (PostgreSQL)."""
    wait_s: Annotated[float, Field(ge=0, le=3600)] = 60.0
    """The API and a dispatcher that start wait so long for a database that does not answer yet."""


class RayCluster(_Group):
    """How the dispatcher reaches Ray."""

    address: str | None = None
    """`auto` or `HOST:PORT` joins a cluster; by default the dispatcher starts a local one."""
    num_cpus: Annotated[int, Field(ge=1)] | None = None
    """CPUs of the local cluster; by default all of the machine's."""
    num_gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs of the local cluster; by default all of the machine's."""
    labels: dict[str, str] = {}
    """Labels of the local cluster's node, which jobs can ask for; `ray start --labels` gives those of other nodes."""
    dashboard: bool = False
    """Whether the local cluster runs Ray's dashboard (needs `pip install "ray[default]"`)."""
    worker_groups: Literal["auto", "managed"] = "auto"
    """auto: each worker is a warm process of this service. managed: several workers are a group that Ray Train
    starts."""


class DispatcherSettings(_Group):
    """Leases and rhythm of `python -m xsam.workers`."""

    poll_s: Annotated[float, Field(gt=0, le=60)] = 0.1
    """Seconds between two looks at the queue."""
    lease_s: Annotated[float, Field(ge=1, le=3600)] = 15.0
    """A runner silent for so long has lost its job."""
    cancel_grace_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """A job that was asked to stop, for whatever reason, and does not for so long is killed."""
    max_silence_s: Annotated[float, Field(ge=10, le=604_800)] = 3600.0
    """A running job without any progress for so long is stopped and goes on from its newest checkpoint."""
    max_run_s: Annotated[float, Field(gt=0)] = 30 * 86_400.0
    """Running time of jobs that set no limits.max_run_s."""
    max_queue_s: Annotated[float, Field(gt=0)] = 30 * 86_400.0
    """A job that is queued for so long fails."""
    max_pause_s: Annotated[float, Field(gt=0)] = 90 * 86_400.0
    """A job that is paused for so long fails."""
    infeasible_grace_s: Annotated[float, Field(ge=0, le=86400)] = 60.0
    """A queued job that the whole cluster could not hold for so long fails; nodes may be rebooting meanwhile."""
    warm_processes: Annotated[int, Field(ge=0, le=64)] | None = None
    """Idle runners, and idle ranks, kept ready on each node; by default one per CPU, at most four."""


class SchedulingSettings(_Group):
    """Every number of the scheduling policy: the fair share, preemption, backfill. All processes must have the same."""

    half_life_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 7 * 86_400.0
    """Time after which used resource-seconds count half."""
    gpu_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Resource units of one GPU, in the fair share."""
    cpu_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    """Resource units of one CPU, in the fair share."""
    charge_window_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3_600.0
    """A job that starts or runs is charged this long in advance (less if it is known to end sooner), so that one plan
    does not give all free resources to the team that is first by a hair."""
    is_preemption_on: bool = True
    """Whether strictly lower priorities can be sent back to the queue."""
    min_run_time_s: Annotated[float, Field(ge=0)] = 600.0
    """A running job younger than this is never preempted."""
    max_preempting_jobs_per_plan: Annotated[int, Field(ge=0)] = 8
    """Bounds both the disturbance and the time of one decision."""
    is_backfill_on: bool = True
    """Whether jobs behind a blocked one may use what it does not need."""
    max_reservations: Annotated[int, Field(ge=0)] = 1
    """How many blocked jobs may have nodes kept for them at once. More let large jobs of a busy cluster start sooner;
    each keeps nodes partly idle while they drain."""
    estimate_slack: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    """An estimated run time counts this many times as long when it is to fit before a reservation."""
    patience_s: Annotated[float, Field(ge=0)] = 12 * 3_600.0
    """A job that holds a reservation and has waited this long goes ahead of every priority, and its nodes are drained:
    nothing starts there that it would have to wait for, whatever is estimated. So neither more important jobs that
    trickle in nor jobs that underestimate themselves can starve it. (More important jobs that fill the whole cluster
    can: they take the reservation first.) Higher priorities can still preempt elsewhere, and preempt it once it runs.
    """
    stop_grace_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    """How soon a stopping job is expected to be gone; used for estimated starts only."""


KeepDays = Annotated[float, Field(gt=0, le=36_500)]


class ArtifactSettings(_Group):
    """Where artifacts lie, and what is kept of ended jobs."""

    url: Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._=-]+)*/?$")] | None = None
    """`s3://BUCKET/PREFIX`: artifacts lie in a bucket, which must exist, and `data_dir` is each node's own. By default
    they lie in `data_dir`, which all nodes then share. Credentials come from AWS's own variables and files."""
    endpoint: Annotated[str, Field(pattern=r"^https?://[^/@]+$")] | None = None
    """Address of an S3 service that is not Amazon's, such as `https://minio.example.org:9000`."""
    checkpoint_keep_days: KeepDays = 30.0
    """Checkpoints of jobs that ended longer ago are deleted. Teams can have other numbers, of everything below too."""
    weights_keep_days: KeepDays | None = None
    """The same for weights, but for those of jobs that were promoted from a study or have the label `keep`."""
    log_keep_days: KeepDays | None = None
    """The same for what was printed, and everything else in a job's folder."""
    metrics_keep_days: KeepDays | None = None
    """Epochs and searches of jobs that ended longer ago are thinned to as many as a chart shows."""
    row_keep_days: KeepDays | None = None
    """Jobs and studies that ended longer ago are forgotten altogether; what they used stays counted."""
    bundle_keep_days: KeepDays | None = None
    """Code that was sent longer ago, and that no job names any more, is deleted."""
    environment_keep_days: KeepDays | None = None
    """The same for locks of packages; a node's copies of them go by `code.max_environment_bytes`."""
    max_team_bytes: Annotated[int, Field(ge=0, le=2**60)] | None = None
    """Of ended jobs' files; a team that has more loses those of the jobs that ended first."""


class LogSettings(_Group):
    """Log lines of API, dispatcher and runners; what training prints lies with its attempt."""

    format: Literal["text", "json"] = "text"
    """json: a document on each line, with `request_id`, or `job` and `attempt`."""
    folder: Path | None = None
    """Where API and dispatcher write; by default `logs` in the data directory. Processes must not share a file: where
    several of a kind share the data directory, give each a folder of its own host."""
    max_bytes: Annotated[int, Field(ge=10_000)] = 10_000_000
    """A file that reaches this is put aside and a new one begun."""
    num_old_files: Annotated[int, Field(ge=1, le=1000)] = 3
    """Files put aside that are kept."""


class NotificationSettings(_Group):
    """Webhooks: who may be told when jobs and studies end."""

    allowed_hosts: tuple[str, ...] = ()
    """Hosts that teams may name, `*.example.com` too; by default none."""
    allow_private_addresses: bool = False
    """Whether such a host may be inside the operator's own network, and be spoken to without TLS."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    """How long a receiver may take to answer."""


class SecretSettings(_Group):
    """Secrets of teams: tracker keys, hub tokens and the like, which jobs get as environment variables."""

    key: SecretStr | None = None
    """Encrypts them in the database: a Fernet key, 32 random bytes in URL-safe base64. Of several, with commas between
    them, the first encrypts and each decrypts. Without one teams have no secrets. API and dispatcher need the same."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, the one that encrypts first."""
        return () if self.key is None else tuple(map(str.strip, self.key.get_secret_value().split(",")))

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        for number, key in enumerate(self.keys, start=1):
            if not re.fullmatch("[A-Za-z0-9_-]{43}=", key):
                made = "`openssl rand -base64 32 | tr '+/' '-_'` makes one"
                raise ValueError(f"key {number} is not 32 random bytes in URL-safe base64; {made}")
        return self


class CodeSettings(_Group):
    """Code that users bring with their jobs. It can do what a rank's process can: read shared files, use the net."""

    upload: Literal["auto", "on", "off"] = "auto"
    """auto: on where no token is needed (one user on loopback), off elsewhere."""
    node_dir: Path | None = None
    """Folder of each node in which bundles are unpacked; by default below the system's folder for temporary files."""
    max_packed_bytes: Annotated[int, Field(ge=1024, lt=2**31)] = 50 * 2**20
    """Of a bundle as it is sent."""
    max_unpacked_bytes: Annotated[int, Field(ge=1024, lt=2**31)] = 200 * 2**20
    max_files: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Files of a bundle."""
    check_within_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """A check of a job's code (imports, one batch forward and backward) may take so long."""
    allow_dependencies: Literal["none", "locked", "any"] = "any"
    """Packages that jobs' code may bring besides: none, those of files that name every version and hash, or any that
    the index has. What the service itself has installed is never replaced."""
    index: str | None = None
    """Where those packages come from: the address of an index, or a folder of wheels; by default uv's own."""
    max_environment_bytes: Annotated[int, Field(ge=0)] = 20_000_000_000
    """Of the packages that a node keeps; those not used for longest go first."""
    install_within_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    """A check of a job whose packages must be installed first may take so much longer."""


class IsolationSettings(_Group):
    """Ranks as users of their teams: what one team's code may see and end of another's on a node."""

    first_user_id: Annotated[int, Field(ge=1000, lt=2**31 - 2**20)] | None = None
    """Ranks and checks of code run as user and group `first_user_id` + the team's number, which nothing else may have
    on the nodes; Ray must be root there, or have its rights to do so. By default they run as Ray's user."""


@dataclass(frozen=True, slots=True)
class AllowedCode:
    """Which code a specification may name."""

    packages: tuple[str, ...] = ()
    """Importable on the nodes."""
    takes_bundles: bool = False
    """Whether jobs may bring their own."""
    dependencies: Literal["none", "locked", "any"] = "any"
    """Packages that this code may need besides."""


NO_CODE = AllowedCode()


IdleThen = Literal["nothing", "warn", "requeue", "end"]
IdleAfter = Annotated[float, Field(ge=1, le=31_622_400)]
IdleGrace = Annotated[float, Field(ge=0, le=31_622_400)]
IdleRequeues = Annotated[int, Field(ge=0, le=1000)]


class IdleSettings(_Group):
    """Running jobs that hold GPUs and do not use them. Teams can have other values."""

    then: IdleThen = "nothing"
    """warn: an event, a message to the team's webhooks, a word in `why` and on the page. requeue: a while after that
    the job saves its state and goes back to the queue, and at last is paused. end: it is cancelled instead."""
    after_s: IdleAfter = 1800.0
    """GPUs that did nothing for so long are idle; where nobody measures them, jobs that reported no progress."""
    grace_s: IdleGrace = 600.0
    """Time between the warning and what follows."""
    max_requeues: IdleRequeues = 3
    """So many times in a row a job goes back to the queue; then it is paused, and a study's trial ended."""


class TrackerSettings(_Group):
    """Trackers that are told what jobs measure, besides the rows, which are the truth. None keeps a job waiting."""

    tensorboard: bool = True
    """Event files beside each job's other files: `xsam pull`, then `tensorboard --logdir`."""
    mlflow_uri: str | None = None
    """Address of an MLflow server (needs `pip install 'xsam[mlflow]'` on the nodes); by default none is told."""
    mlflow_experiment: str = "xsam"
    """Where its runs are shown; made if there is none."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Weights & Biases (needs `pip install 'xsam[wandb]'` on the nodes). offline: below each job's folder, for `wandb
    sync`. online: sent at once, with the key of the nodes' own environment."""
    wandb_project: str = "xsam"


class TrainingSettings(_Group):
    """What jobs may use."""

    dataset_root: Path | None = None
    """Folder with torchvision datasets and image folders; by default `datasets` in the data directory."""
    model_root: Path | None = None
    """Folder with pretrained weights that jobs may start from; by default `models` in the data directory."""
    allow_download: bool = False
    """Whether a missing torchvision dataset may be downloaded."""
    allowed_packages: tuple[str, ...] = ()
    """Top-level packages from which a job's `target` may be imported."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: jobs with GPUs train on them. cpu: everything trains on the CPU, so that a cluster whose GPUs are only
    announced (`ray start --num-gpus=4`) can be tried out."""


class Settings(BaseSettings):
    """Everything an operator can set, grouped; read once at the start of a process and passed on."""

    model_config = SettingsConfigDict(
        env_prefix="XSAM_",
        env_nested_delimiter="__",
        env_ignore_empty=True,  # compose files pass on what is not set as empty
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # a key, or the database's address
        use_attribute_docstrings=True,
    )

    data_dir: Path = Path("xsam-data")
    """Holds the SQLite file, artifacts, datasets and logs; shared by all nodes of a cluster unless `artifacts.url` is
    set."""
    api: ApiSettings = ApiSettings()
    page: PageSettings = PageSettings()
    sign_on: SignOnSettings = SignOnSettings()
    database: DatabaseSettings = DatabaseSettings()
    ray: RayCluster = RayCluster()
    dispatcher: DispatcherSettings = DispatcherSettings()
    scheduling: SchedulingSettings = SchedulingSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    training: TrainingSettings = TrainingSettings()
    code: CodeSettings = CodeSettings()
    isolation: IsolationSettings = IsolationSettings()
    trackers: TrackerSettings = TrackerSettings()
    logs: LogSettings = LogSettings()
    notifications: NotificationSettings = NotificationSettings()
    secrets: SecretSettings = SecretSettings()
    idle: IdleSettings = IdleSettings()
    parent_pid: Annotated[int, Field(ge=1)] | None = None
    """Stop in order when this process, the one that started this one, is gone; set by `xsam serve` for its children."""

    @model_validator(mode="after")
    def _stores_what_nodes_share(self) -> Self:
        if self.artifacts.endpoint is not None and self.artifacts.url is None:
            raise ValueError("artifacts.endpoint is set, but artifacts.url is not; it must name a bucket, s3://BUCKET")
        ruled_out = {
            "artifacts.url": (self.artifacts.url, "for which Ray Train needs a folder that all nodes share"),
            "isolation.first_user_id": (self.isolation.first_user_id, "whose ranks Ray Train starts as its own user"),
        }
        for name, (value, why) in ruled_out.items():
            if value is not None and self.ray.worker_groups == "managed":
                raise ValueError(f"ray.worker_groups is 'managed', {why}; with {name} allowed is 'auto'")
        return self

    @property
    def database_url(self) -> str:
        """The database URL with its default filled in."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.data_dir.resolve() / 'xsam.db'}"

    @property
    def artifact_root(self) -> Path:
        """Folder of the artifact store, or where that is a bucket, this node's scratch folder."""
        return self.data_dir.resolve() / "artifacts"

    @property
    def store_place(self) -> StorePlace:
        """Where artifacts lie."""
        return StorePlace(self.artifact_root, self.artifacts.url, self.artifacts.endpoint)

    @property
    def log_folder(self) -> Path:
        """Folder of the service's own logs with its default filled in."""
        return (self.logs.folder or self.data_dir / "logs").resolve()

    @property
    def dataset_root(self) -> Path:
        """Folder of the datasets with its default filled in."""
        return (self.training.dataset_root or self.data_dir / "datasets").resolve()

    @property
    def model_root(self) -> Path:
        """Folder of the pretrained weights with its default filled in."""
        return (self.training.model_root or self.data_dir / "models").resolve()

    @property
    def code_root(self) -> Path:
        """Folder of a node for unpacked bundles with its default filled in."""
        return self.code.node_dir or Path(tempfile.gettempdir()) / f"xsam-code-{os.getuid()}"

    @property
    def environment_root(self) -> Path:
        """Folder of a node for the packages that jobs bring."""
        return self.code_root / "environments"

    @property
    def allowed_code(self) -> AllowedCode:
        """Which code a specification may name here."""
        is_on = self.code.upload == "on" or (self.code.upload == "auto" and not self.api.needs_token)
        allowed, dependencies = self.training.allowed_packages, self.code.allow_dependencies
        return AllowedCode(allowed, takes_bundles=is_on, dependencies=dependencies)


def get_settings() -> Settings:
    """Read the settings from the environment."""
    return Settings()


def environment_for(settings: Settings) -> dict[str, str]:
    """Return an environment from which a child process reads these settings and no others.

    It names this process as the parent, so the child stops when this process is gone.
    """
    values = settings.model_dump(mode="json", exclude_none=True, exclude={"database", "secrets", "parent_pid"})
    named = {"XSAM_DATA_DIR": str(settings.data_dir.resolve()), "XSAM_PARENT_PID": str(os.getpid())}
    named["XSAM_DATABASE__URL"] = settings.database_url
    named["XSAM_DATABASE__POOL_SIZE"] = str(settings.database.pool_size)
    if settings.secrets.key is not None:
        named["XSAM_SECRETS__KEY"] = settings.secrets.key.get_secret_value()
    for group, fields in values.items():
        if isinstance(fields, dict):
            texts = {name: v if isinstance(v, str) else json.dumps(v) for name, v in fields.items()}
            named |= {f"XSAM_{group}__{name}".upper(): text for name, text in texts.items()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("XSAM_")}
    return inherited | named


def is_loopback(host: str) -> bool:
    """Return whether a host name or address can only mean this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
