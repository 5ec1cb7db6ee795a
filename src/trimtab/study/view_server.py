"""The view on 127.0.0.1: the page, and what only a model at hand can tell.

Whoever can run code in a browser on this machine can reach a local port. So every path begins with a random token, ``Host`` must
be this server's own, which stops a foreign name that resolves to 127.0.0.1, and no answer carries a header that would let another
page read it. One request works with the model at a time.
"""

import hmac
import json
import math
import secrets
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import torch

from trimtab.analysis.contributions import direct_path
from trimtab.analysis.passes import find_readout
from trimtab.analysis.token_record import JudgedResponse, pass_tokens
from trimtab.errors import InputError, TrimtabError
from trimtab.evaluation.rows import UNSTEERED
from trimtab.report.view_page import View, render_view
from trimtab.store import parse_json
from trimtab.study.fork import fork, forked_answer
from trimtab.study.tokens import PairTokens
from trimtab.study.values import Evaluation
from trimtab.study.view_data import token_pieces

if TYPE_CHECKING:
    from trimtab.study.study import Study

HOST = "127.0.0.1"
LONGEST_BODY = 10_000
SECONDS = 10.0
"""How long a connection may take to say what it wants."""


def serve_view(study: "Study", view: View, evaluation: Evaluation | None, port: int, ready: Callable[[str], None]) -> None:
    """Serve a view until it is stopped.

    Args:
        study: whose model answers.
        view: the page.
        evaluation: whose responses can be continued; None where there is no model.
        port: 0 takes a free one.
        ready: told of the address.
    """
    live = evaluation is not None and evaluation.tokens is not None
    page = render_view(view, limit=None, live=live)
    desk = ModelDesk(study, evaluation) if evaluation is not None and evaluation.tokens is not None else None
    serve_page(page, desk, port, ready)


def serve_page(page: str, desk: "ModelDesk | None", port: int, ready: Callable[[str], None]) -> None:
    """Serve a page, with a model where there is one."""
    try:
        server = ViewServer((HOST, port), page, desk)
    except OSError as error:
        raise InputError(
            f"cannot listen on {HOST}:{port}: {error.strerror}; choose another --port, or 0 for a free one"
        ) from error
    with server:
        ready(server.url)
        server.serve_forever()


class ModelDesk:
    """Answers what the page asks of the model, one question at a time."""

    def __init__(self, study: "Study", evaluation: Evaluation) -> None:
        assert evaluation.tokens is not None
        self._study, self._evaluation = study, evaluation
        self._pair: PairTokens = evaluation.tokens
        self._busy = threading.Lock()

    def answer(self, question: str, asked: Mapping[str, object]) -> dict[str, object]:
        """The answer to one question.

        Raises:
            InputError: an unknown question or a bad value, or the model is at work on another question.
        """
        questions = {"fork": self._fork, "neurons": self._neurons}
        if question not in questions:
            raise InputError(f"no question {question!r}; accepted: {', '.join(questions)}")
        if not self._busy.acquire(timeout=SECONDS):
            raise InputError("the model is at work on another request; try again when that is done")
        try:
            return questions[question](asked)
        finally:
            self._busy.release()

    def _response(self, asked: Mapping[str, object]) -> JudgedResponse:
        condition = {"base": UNSTEERED, "steered": self._evaluation.condition}.get(str(asked.get("side")))
        name = f"{condition}/{asked.get('seed')}/{asked.get('problem')}/{asked.get('sample')}"
        if name not in self._pair.responses:
            raise InputError(f"no recorded response {name!r}")
        return self._pair.responses[name]

    def _fork(self, asked: Mapping[str, object]) -> dict[str, object]:
        response = self._response(asked)
        at, strength, alternative = _whole(asked, "token"), _number(asked, "strength"), asked.get("alternative")
        forced = None
        if alternative is not None:
            rows, _ = self._pair.record.read()
            name = response.trace.id if response.trace.id in rows else self._bare_name(response)
            likely = rows[name].alternative
            rank = _whole(asked, "alternative")
            if not (0 <= at < len(likely) and 0 <= rank < likely.shape[1]):
                raise InputError(f"there is no alternative {rank} at token {at}")
            forced = int(likely[at, rank])
        limit = max(self._study.settings.sampling.max_new_tokens, len(response.trace.response_ids))
        found = fork(self._study.model, response, self._pair.steering, at, strength=strength, forced=forced, max_new_tokens=limit)
        problem = self._evaluation.problems[response.trace.problem_id]
        tokenizer = self._study.model.tokenizer
        shown = forked_answer(self._study, problem, found, lambda ids, text: token_pieces(tokenizer, ids, text))
        return {**shown, "side": asked.get("side"), "token": at, "strength": strength}

    def _bare_name(self, response: JudgedResponse) -> str:
        _, _, rest = response.trace.id.partition("/")
        return f"{UNSTEERED}/{rest}"

    def _neurons(self, asked: Mapping[str, object]) -> dict[str, object]:
        """Every neuron's contribution to every token of a response, ``[token][neuron]``."""
        if self._pair.record.why_not:
            raise InputError(f"contributions are not told for this model: {self._pair.record.why_not}")
        model, steering = self._study.model, self._pair.steering
        path = direct_path(model, steering, find_readout(model))
        found = pass_tokens(model, [self._response(asked)], steering, path)
        assert found.contributions is not None
        return {"contributions": [[round(value, 4) for value in row] for row in found.contributions.tolist()]}


def _whole(asked: Mapping[str, object], name: str) -> int:
    value = asked.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; give a whole number")
    return value


def _number(asked: Mapping[str, object], name: str) -> float:
    value = asked.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; give a number")
    return float(value)


class ViewServer(ThreadingHTTPServer):
    """The page at ``/TOKEN/``, questions at ``/TOKEN/api/NAME``, and nothing else."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], page: str, desk: ModelDesk | None) -> None:
        super().__init__(address, _Handler)
        self.page, self.desk = page.encode(), desk
        self.token = secrets.token_urlsafe(24)
        port = self.server_address[1]
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self.url = f"http://{HOST}:{port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = SECONDS
    server_version, sys_version = "trimtab", ""

    def do_GET(self) -> None:
        path = self._allowed()
        if path == "":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif path is not None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

    def do_POST(self) -> None:
        path = self._allowed()
        if path is None:
            return
        if not path.startswith("api/") or self.server.desk is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no model at hand to ask")
            return
        # a form of another page cannot send JSON, and its script would have to ask for leave first, which nobody gives
        if self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LONGEST_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {LONGEST_BODY} bytes, with their length")
            return
        try:
            asked = parse_json(self.rfile.read(int(length)))
            if not isinstance(asked, dict):
                raise InputError("send one JSON object")
            answer = self.server.desk.answer(path.removeprefix("api/"), asked)
        except (TrimtabError, ValueError, torch.OutOfMemoryError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        self._send(HTTPStatus.OK, json.dumps(answer, allow_nan=False).encode(), "application/json")

    def _allowed(self) -> str | None:
        """The path below the token; None where the request was refused."""
        if self.headers.get("Host") not in self.server.hosts:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "this server answers to its own address only")
            return None
        origin = self.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://") not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "this server answers its own page only")
            return None
        _, _, rest = self.path.partition("?")[0].partition("/")
        token, _, path = rest.partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            return None
        return path

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, json.dumps({"error": why}).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the token is part of every path."""
