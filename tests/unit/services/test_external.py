"""A service that runs already: it must answer before anything starts, it is never stopped, and its key stays in the environment."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import FailureKind, Phase, ServiceError
from tune_gpu.common.process.ports import free_port
from tune_gpu.services.base import LaunchSite
from tune_gpu.services.external.kind import KIND
from tune_gpu.services.external.settings import ExternalSettings
from tune_gpu.services.loopback import NoAnswer, get

KEY = "wonderland-9"
SITE = LaunchSite("cpu", [1, 1])


@contextlib.contextmanager
def answering(answers: Mapping[str, Any], key: str | None = None, wrap: Callable[[HTTPServer], None] = lambda _server: None) -> Iterator[str]:
    """A server with these answers: path -> status, or an object that is sent as JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path, 404)
            refused = key is not None and self.headers["Authorization"] != f"Bearer {key}"
            self.send_response(401 if refused else answer if isinstance(answer, int) else 200)
            self.end_headers()
            self.wfile.write(b"" if isinstance(answer, int) else json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    wrap(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def models(*names: str) -> dict[str, Any]:
    return {"data": [{"id": name} for name in names]}


def problem(settings: ExternalSettings, *, local: bool = True) -> str:
    with pytest.raises(UserError) as raised:
        KIND.check("other", settings, local=local)
    text = str(raised.value)
    assert text.startswith("services.other.")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "services.other.url: missing"),
        ("127.0.0.1:8000", "not an address"),
        ("ftp://host", "not an address"),
        ("http://", "not an address"),
        ("http://host:port", "not an address"),
        ("http://host:0", "not an address"),
        ("http://host:99999", "not an address"),
        ("http://ho st", "not an address"),
        ("http://[::1", "not an address"),
        ("http://host\n", "line break"),
        ("http://user:hunter2@host", "has a user or a password"),
        ("http://user:hunter2@host:port", "has a user or a password"),
        ("https://host?key=hunter2", "has a query or a fragment"),
        ("https://host/#part", "has a query or a fragment"),
        ("http://host:8000/v1", "ends with /v1, which every request adds. Set http://host:8000."),
        ("http://host:8000/v1/", "Set http://host:8000."),
    ],
)
def test_a_wrong_address_is_refused(url: str, said: str) -> None:
    text = problem(ExternalSettings(url), local=False)
    assert said in text
    assert "hunter2" not in text


def test_addresses_of_every_allowed_form_pass() -> None:
    for url in ("http://127.0.0.1:8000", "https://models.example.org", "https://host/openai/", "http://[::1]:80", "HTTP://host"):
        KIND.check("other", ExternalSettings(url), local=False)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused_in_one_line(url: str) -> None:
    with contextlib.suppress(UserError):
        KIND.check("other", ExternalSettings(url), local=False)


def test_a_service_that_does_not_answer_is_refused_before_anything_starts() -> None:
    url = f"http://127.0.0.1:{free_port([20000, 29999])}"
    assert f"services.other.url={url}: does not answer" in problem(ExternalSettings(url))
    KIND.check("other", ExternalSettings(url), local=False)  # another machine may reach it
    with pytest.raises(ServiceError, match="does not answer") as raised:
        KIND.launch("other", ExternalSettings(url), SITE).start()
    failure = raised.value.failure
    assert (failure.kind, failure.service, failure.phase, failure.retryable) == (FailureKind.STARTUP_CRASH, "other", Phase.START, False)


def test_health_is_asked_first_and_the_models_then() -> None:
    for answers in ({"/health": 200}, {"/v1/models": models("a")}, {"/health": 503, "/v1/models": models("a")}):
        with answering(answers) as url:
            service = KIND.launch("other", ExternalSettings(url), SITE)
            service.start()
            assert service.healthy(5.0)
    with answering({"/health": 503}) as url:
        assert "it answers /health with status 503 and /v1/models with status 404. Set services.other.health" in problem(ExternalSettings(url))
        assert "it answers /ready with status 404" in problem(ExternalSettings(url, health="/ready"))


def test_its_only_model_is_asked_for() -> None:
    with answering({"/health": 200, "/v1/models": models("qwen")}) as url:
        service = KIND.launch("other", ExternalSettings(f"{url}/", api="openai-chat"), SITE)
        info = service.start()
        assert (service.endpoint.url, service.endpoint.model, info.as_dict()["model"]) == (url, "qwen", "qwen")
        assert KIND.launch("other", ExternalSettings(url, model="mine"), SITE).endpoint.model == "mine"
    listings: list[tuple[Any, str]] = [
        (models("a", "b"), "lists the models a, b"),
        (models(), "lists no models"),
        (404, "lists no models (/v1/models answers with status 404)"),
        ("odd", "lists no models"),
    ]
    for listed, said in listings:
        with answering({"/health": 200, "/v1/models": listed}) as url:
            assert f"services.other.model: {url} {said}" in problem(ExternalSettings(url, api="openai-chat"))
            KIND.check("other", ExternalSettings(url, api="openai-chat", model="a"), local=True)
            KIND.check("other", ExternalSettings(url), local=True)  # it is never asked


def test_its_key_comes_from_the_environment_and_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering({"/health": 200}, key=KEY) as url:
        settings = ExternalSettings(url, key_env="OTHER_KEY")
        assert "services.other.key_env=OTHER_KEY: the variable is not set" in problem(settings)
        assert "Set services.other.key_env to the name" in problem(ExternalSettings(url))
        monkeypatch.setenv("OTHER_KEY", f"{KEY}x")
        text = problem(settings)
        assert "refuses the request of /health with status 401. Set OTHER_KEY to its key." in text
        assert KEY not in text
        monkeypatch.setenv("OTHER_KEY", f"{KEY}\n")
        assert "its value has a control character" in problem(settings)
        monkeypatch.setenv("OTHER_KEY", KEY)
        service = KIND.launch("other", settings, SITE)
        service.start()
        assert service.endpoint.key == KEY
    text = problem(ExternalSettings("http://host", key_env="sk-123-456"), local=False)
    assert "services.other.key_env: not the name of a variable" in text
    assert "sk-123" not in text


def test_it_is_neither_stopped_nor_ours() -> None:
    with answering({"/health": 200}) as url:
        service = KIND.launch("other", ExternalSettings(url), SITE)
        assert service.failure() is not None
        service.start()
        assert (service.pids(), service.log(), service.gauges(), KIND.gpus(service.settings).cards) == ([], "", {}, 0)
        assert service.failure() is None
        service.stop()
        service.stop()
        assert get(f"{url}/health")[0] == 200
        with pytest.raises(ServiceError, match="enough"):
            service.start(abort=lambda: "enough")


def test_its_end_is_a_loss_once_its_health_was_asked_for() -> None:
    with answering({"/health": 200}) as url:
        service = KIND.launch("other", ExternalSettings(url), SITE)
        service.start()
    assert not service.healthy(1.0)
    failure = service.failure()
    assert failure is not None
    assert (failure.kind, failure.service) == (FailureKind.SERVICE_LOST, "other")
    assert f"it no longer answers at {url}" in failure.message


def test_what_a_foreign_space_needs_trust_for() -> None:
    assert [name for name, _ in ExternalSettings("http://host").needs_trust()] == ["url"]
    assert [name for name, _ in ExternalSettings("http://host", key_env="AWS_KEY").needs_trust()] == ["url", "key_env"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test"]
    subprocess.run([*request, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def test_a_server_behind_tls_is_used_if_its_certificate_is_trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def wrap(server: HTTPServer) -> None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)

    with answering({"/health": 200, "/v1/models": models("qwen")}, key=KEY, wrap=wrap) as plain:
        url = plain.replace("http:", "https:")
        with pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED"):
            get(f"{url}/health")
        assert "does not answer" in problem(ExternalSettings(url))
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
        monkeypatch.setenv("OTHER_KEY", KEY)
        service = KIND.launch("other", ExternalSettings(url, key_env="OTHER_KEY", api="openai-chat"), SITE)
        assert service.start().model == "qwen"
