"""How the client sends requests: what is tried again, how streams are read, what becomes of a refusal."""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import httpx
from pydantic import BaseModel, ValidationError

from xsam.api.client.errors import ApiError, UnexpectedAnswerError, UnreachableError
from xsam.api.http.problems import Problem

_Model = TypeVar("_Model", bound=BaseModel)
_Item_co = TypeVar("_Item_co", covariant=True)

PAGE = 200
"""Items that a list asks for at once."""

_FIRST_PAUSE_S = 0.2
_PAUSE_FACTOR = 3.0
_LONGEST_WAIT_S = 30.0
"""However long a server asks to be left alone."""
_STREAM_SILENCE_S = 60.0
"""The server sends a sign of life every 15 s."""


class Page(Protocol[_Item_co]):
    """An answer that holds a part of a list."""

    @property
    def items(self) -> Sequence[_Item_co]:
        """The part."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One server-sent event."""

    id: str
    event: str
    data: str


class Http:
    """One server's connections.

    Args:
        url: where the server listens.
        timeout_s: how long one answer may take to start or to go on.
        num_tries: how often a request is sent before the error is the caller's.
        token: says who is calling; None for a service that needs none.
    """

    def __init__(self, url: str, *, timeout_s: float, num_tries: int, token: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._num_tries = num_tries
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._httpx = httpx.Client(base_url=self._url, timeout=timeout_s, headers=headers)

    def close(self) -> None:
        """Close the connections."""
        self._httpx.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Return the answer to a request that may be repeated without harm.

        Raises:
            ApiError: the server refused it.
            UnreachableError: no answer after all tries.
        """
        request = self._httpx.build_request(
            method, path, params=_given(params), json=json, content=content, headers=headers
        )
        for pause_s in self._pauses():
            try:
                response = self._httpx.send(request)
            except httpx.TransportError as e:
                if pause_s is None:
                    raise self._unreachable(e) from e
                time.sleep(pause_s)
            else:
                if response.status_code == httpx.codes.TOO_MANY_REQUESTS and pause_s is not None:
                    time.sleep(max(pause_s, _retry_after_s(response)))
                    continue
                _raise_for_problem(response)
                return response
        raise AssertionError("the last pause is None, so the loop has returned or raised")

    def read(self, model: type[_Model], method: str, path: str, **options: Any) -> _Model:
        """Return the answer to a request as a document; options as for `send`.

        Raises:
            ApiError: the server refused it.
            UnreachableError: no answer after all tries.
            UnexpectedAnswerError: the answer is not such a document.
        """
        content = self.send(method, path, **options).content
        try:
            return model.model_validate_json(content)
        except ValidationError as e:
            raise UnexpectedAnswerError(f"the answer to {method} {path} is not this service's") from e

    def pages(
        self,
        model: type[Page[_Item_co]],
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        after: str | None = None,
        limit: int = PAGE,
    ) -> Iterator[_Item_co]:
        """Yield all items of a list, reading page after page; every read may raise what `read` raises.

        Args:
            model: of a page.
            path: of the list.
            query: what to list.
            after: the items' field that the next page is asked for by; None for a list that gives a cursor.
            limit: items on a page.
        """
        parameter, mark = ("cursor" if after is None else "after"), None
        while True:
            asked = {**(query or {}), parameter: mark, "limit": limit}
            page: Any = self.read(cast("type[BaseModel]", model), "GET", path, params=asked)
            yield from page.items
            if after is None:
                mark = page.next_cursor
            else:
                mark = getattr(page.items[-1], after) if len(page.items) == limit else None
            if mark is None:
                return

    def lines(self, path: str, *, params: Mapping[str, Any]) -> Iterator[str]:
        """Yield the lines of a text answer as they come; waits for each as long as it takes.

        Raises:
            ApiError: the server refused it.
            UnreachableError: the connection failed.
        """
        try:
            with self._stream(path, params=params, headers={}, silence_s=None) as response:
                yield from response.iter_lines()
        except httpx.TransportError as e:
            raise self._unreachable(e) from e

    def server_sent_events(self, path: str, *, after: int | str | None) -> Iterator[Message]:
        """Yield messages until the server ends the stream, reconnecting after the last one when the connection breaks.

        Args:
            path: of the stream.
            after: id of the message after which to begin; None for the stream's own beginning.

        Raises:
            ApiError: the server refused it.
            UnreachableError: reconnecting failed too often in a row.
        """
        last_id = "" if after is None else str(after)
        pauses = self._pauses()
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
            failure: httpx.TransportError | None = None
            try:
                with self._stream(path, params={}, headers=headers, silence_s=_STREAM_SILENCE_S) as response:
                    for message in parse_events(response.iter_lines()):
                        last_id = message.id or last_id
                        pauses = self._pauses()
                        yield message
                        if message.event == "end":
                            return
                    if response.status_code == httpx.codes.NO_CONTENT:
                        return
            except httpx.TransportError as e:
                failure = e
            pause_s = next(pauses, None)  # a stream that ends without `end` was cut by a stopping server
            if pause_s is None:
                raise self._unreachable(failure or "the stream ended early") from failure
            time.sleep(pause_s)

    def download(self, path: str, target: Path) -> None:
        """Write an answer to a file, asking for the rest when the connection breaks.

        The bytes go to `target` with the suffix `.part`, which is renamed when all are there.

        Raises:
            ApiError: the server refused it.
            UnreachableError: the connection broke too often without progress.
        """
        part = target.with_name(target.name + ".part")
        part.unlink(missing_ok=True)
        etag: str | None = None
        pauses = self._pauses()
        while True:
            start = part.stat().st_size if part.exists() else 0
            headers = {"Range": f"bytes={start}-", "If-Range": etag} if start and etag else {}
            try:
                with self._stream(path, params={}, headers=headers, silence_s=_STREAM_SILENCE_S) as response:
                    etag = response.headers.get("ETag")
                    is_rest = response.status_code == httpx.codes.PARTIAL_CONTENT
                    with part.open("ab" if is_rest else "wb") as file:
                        for data in response.iter_bytes():
                            file.write(data)
                            pauses = self._pauses()
                part.replace(target)
                return
            except httpx.TransportError as e:
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise self._unreachable(e) from e
                time.sleep(pause_s)

    @contextmanager
    def _stream(
        self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str], silence_s: float | None
    ) -> Iterator[httpx.Response]:
        timeout = httpx.Timeout(self._httpx.timeout.connect, read=silence_s)
        request = ("GET", path)
        with self._httpx.stream(*request, params=_given(params), headers=dict(headers), timeout=timeout) as response:
            if response.is_error:
                response.read()
            _raise_for_problem(response)
            yield response

    def _pauses(self) -> Iterator[float | None]:
        yield from (_FIRST_PAUSE_S * _PAUSE_FACTOR**number for number in range(self._num_tries - 1))
        yield None

    def _unreachable(self, reason: object) -> UnreachableError:
        return UnreachableError(f"no answer from {self._url}: {reason}")


def document(spec: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification as it is sent."""
    return spec.model_dump(mode="json") if isinstance(spec, BaseModel) else dict(spec)


def once(idempotency_key: str | None) -> dict[str, str]:
    """Return the header that names a submit, so that sent again it makes nothing new; made up where none is given."""
    return {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}


def parse_events(lines: Iterable[str]) -> Iterator[Message]:
    """Yield the messages in a stream of server-sent events; comments are skipped."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        if "data" in fields:
            yield Message(
                id=fields.get("id", [""])[-1],
                event=fields.get("event", ["message"])[-1],
                data="\n".join(fields["data"]),
            )
        fields = {}


def _retry_after_s(response: httpx.Response) -> float:
    given = response.headers.get("Retry-After", "")
    return min(float(given), _LONGEST_WAIT_S) if given.isdecimal() else 0.0


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _raise_for_problem(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # not our server: a proxy, or another program on the port
        problem = Problem(
            type="about:blank",
            title=response.reason_phrase,
            status=response.status_code,
            detail=f"HTTP {response.status_code} {response.reason_phrase} from {response.url}",
            code="unknown",
        )
    raise ApiError(problem)
