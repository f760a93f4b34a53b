"""A server that others can reach, asked from outside with plain HTTP."""

from __future__ import annotations

import http.client
import io
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mlflow_server.hosting.guard import NOTHING

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
SEARCH = {"experiment_ids": ["0"], "max_results": 5}


@pytest.fixture(scope="module")
def run(team):
    """A run of the writer's, with an artifact."""
    experiment = team.post("experiments/create", {"name": "parts"}, "wim").json()["experiment_id"]
    info = team.post("runs/create", {"experiment_id": experiment}, "wim").json()["run"]["info"]
    place = f"{ARTIFACTS}/{experiment}/{info['run_id']}/artifacts"
    assert team.ask("PUT", f"{place}/report.html", user="wim", data=b"<p>fine</p>").status_code == 200
    return {"id": info["run_id"], "experiment": experiment, "place": place}


def raw(team, method: str, target: str, user: str | None = None, **headers: str) -> tuple[int, bytes]:
    """A request whose target is sent as it is: libraries would tidy it up."""
    import base64

    parts = urlsplit(team.address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.putrequest(method, target, skip_host="Host" in headers)
    if user is not None:
        word = base64.b64encode(f"{user}:{team.users[user]}".encode()).decode()
        connection.putheader("Authorization", f"Basic {word}")
    body = b"x" if method == "PUT" else b""
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


# Who is there


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/version"),
        ("POST", "/api/2.0/mlflow/runs/search"),
        ("GET", "/ajax-api/2.0/mlflow/experiments/get?experiment_id=0"),
        ("GET", "/get-artifact?path=report.html&run_uuid=x"),
        ("GET", f"{ARTIFACTS}/0/x/artifacts/report.html"),
        ("PUT", f"{ARTIFACTS}/0/x/artifacts/report.html"),
        ("GET", "/api/2.0/mlflow/users/list"),
        ("POST", "/graphql"),
    ],
)
def test_without_a_user_nothing_is_shown(team, method, path):
    answer = team.ask(method, path, json={} if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_whether_it_is_well_is_told_to_anybody(team):
    assert team.ask("GET", "/health").text == "OK"


@pytest.mark.parametrize(
    "credentials", [("wim", "not-the-password"), ("nobody", "wim-has-a-password"), ("admin", ""), ("", "")]
)
def test_a_wrong_password_is_refused(team, credentials):
    for _ in range(2):  # the second is not answered from memory of the first
        answer = team.post("runs/search", SEARCH, auth=credentials)
        assert answer.status_code == 401


@pytest.mark.parametrize("header", ["Basic", "Basic %%%", "Bearer abc", "Basic d2lt", "basic  "])
def test_credentials_that_are_none_are_refused(team, header):
    answer = team.post("runs/search", SEARCH, headers={"Authorization": header})
    assert answer.status_code == 401


# What they may do


def test_a_reader_reads(team, run):
    found = team.post("runs/search", {"experiment_ids": [run["experiment"]]}, "rita").json()
    assert [each["info"]["run_id"] for each in found["runs"]] == [run["id"]]
    names = team.post("experiments/search", {"max_results": 10}, "rita").json()["experiments"]
    assert "parts" in {each["name"] for each in names}
    file = team.ask("GET", f"/get-artifact?path=report.html&run_uuid={run['id']}", user="rita")
    assert file.content == b"<p>fine</p>"
    assert team.ask("GET", f"{run['place']}/report.html", user="rita").content == b"<p>fine</p>"


def test_a_reader_changes_nothing_and_makes_nothing(team, run):
    attempts = {
        "experiments/create": {"name": "mine"},
        "experiments/delete": {"experiment_id": run["experiment"]},
        "experiments/update": {"experiment_id": run["experiment"], "new_name": "mine"},
        "experiments/set-experiment-tag": {"experiment_id": run["experiment"], "key": "a", "value": "b"},
        "runs/create": {"experiment_id": run["experiment"]},
        "runs/update": {"run_id": run["id"], "status": "FINISHED"},
        "runs/delete": {"run_id": run["id"]},
        "runs/log-metric": {"run_id": run["id"], "key": "a", "value": 1, "timestamp": 1},
        "runs/log-batch": {"run_id": run["id"], "metrics": [{"key": "a", "value": 1, "timestamp": 1}]},
        "runs/log-parameter": {"run_id": run["id"], "key": "a", "value": "b"},
        "runs/set-tag": {"run_id": run["id"], "key": "a", "value": "b"},
        "registered-models/create": {"name": "mine"},
        "model-versions/create": {"name": "mine", "source": f"runs:/{run['id']}/model"},
        "logged-models": {"experiment_id": run["experiment"], "name": "mine"},
        "users/create": {"username": "mallory", "password": "a-long-password"},
    }
    for path, body in attempts.items():
        assert team.post(path, body, "rita").status_code == 403, path
    rise = team.ask(
        "PATCH",
        "/api/2.0/mlflow/users/update-admin",
        user="rita",
        json={"username": "rita", "is_admin": True},
    )
    assert rise.status_code == 403
    assert team.ask("PUT", f"{run['place']}/report.html", user="rita", data=b"other").status_code == 403
    assert team.ask("DELETE", f"{run['place']}/report.html", user="rita").status_code == 403
    assert team.ask("GET", f"{run['place']}/report.html", user="wim").content == b"<p>fine</p>"
    found = team.post("runs/search", {"experiment_ids": [run["experiment"]]}, "wim").json()["runs"]
    assert [each["info"]["status"] for each in found] == ["RUNNING"]
    assert "metrics" not in found[0]["data"]


def test_a_writer_records_and_registers(team, run):
    assert team.post(
        "runs/log-metric", {"run_id": run["id"], "key": "auroc", "value": 0.9, "timestamp": 1}, "wim"
    ).ok
    assert team.post("registered-models/create", {"name": "screws"}, "wim").ok
    source = f"mlflow-artifacts:/{run['experiment']}/{run['id']}/artifacts"
    made = team.post(
        "model-versions/create", {"name": "screws", "source": source, "run_id": run["id"]}, "wim"
    )
    assert made.ok, made.text
    alias = {"name": "screws", "alias": "champion", "version": "1"}
    assert team.post("registered-models/alias", alias, "wim").ok
    known = team.ask("GET", "/api/2.0/mlflow/registered-models/alias?name=screws&alias=champion", user="rita")
    assert known.json()["model_version"]["version"] == "1"
    extra = team.post("runs/create", {"experiment_id": run["experiment"]}, "wim").json()["run"]["info"][
        "run_id"
    ]
    assert team.post("runs/delete", {"run_id": extra}, "wim").ok


def test_a_writer_manages_no_users(team):
    for path, body in {
        "users/create": {"username": "mallory", "password": "a-long-password"},
        "users/list": None,
    }.items():
        answer = team.ask("POST" if body else "GET", f"/api/2.0/mlflow/{path}", user="wim", json=body)
        if body:
            assert answer.status_code == 403
    rise = team.ask(
        "PATCH", "/api/2.0/mlflow/users/update-admin", user="wim", json={"username": "wim", "is_admin": True}
    )
    assert rise.status_code == 403
    gone = team.ask("DELETE", "/api/2.0/mlflow/users/delete", user="wim", json={"username": "rita"})
    assert gone.status_code == 403


def test_who_is_removed_is_out_at_once(team, call):
    secret = {"NFBMR_USER_PASSWORD": "temporary-password"}
    call("server", "users", "add", "tom", "--role", "writer", cwd=team.folder, env=secret)
    who = ("tom", "temporary-password")
    assert team.post("runs/search", SEARCH, auth=who).ok
    call("server", "users", "grant", "tom", "reader", cwd=team.folder)
    assert team.post("experiments/create", {"name": "toms"}, auth=who).status_code == 403
    call("server", "users", "remove", "tom", cwd=team.folder)
    assert team.post("runs/search", SEARCH, auth=who).status_code == 401


def test_a_reader_may_write_to_one_experiment(team, call, run):
    secret = {"NFBMR_USER_PASSWORD": "another-password"}
    call("server", "users", "add", "una", cwd=team.folder, env=secret)
    who = ("una", "another-password")
    call("server", "users", "grant", "una", "writer", "--experiment", "parts", cwd=team.folder)
    assert team.post("runs/create", {"experiment_id": run["experiment"]}, auth=who).ok
    assert team.post("runs/create", {"experiment_id": "0"}, auth=who).status_code == 403
    assert team.post("experiments/create", {"name": "unas"}, auth=who).status_code == 403
    call("server", "users", "grant", "una", "reader", "--experiment", "parts", cwd=team.folder)
    assert team.post("runs/create", {"experiment_id": run["experiment"]}, auth=who).status_code == 403


# Whence they come


@pytest.mark.parametrize(
    "host", ["evil.example.com", "tracking.example.com.evil.example", "10.0.0.5:5000", "192.168.1.7", ""]
)
def test_a_foreign_host_is_refused(team, host):
    assert raw(team, "GET", "/", "admin", Host=host)[0] in (400, 403)
    assert raw(team, "POST", "/api/2.0/mlflow/runs/search", "admin", Host=host)[0] in (400, 403)


@pytest.mark.parametrize("host", ["tracking.example.com", "tracking.example.com:443", "localhost:5000"])
def test_its_own_names_are_accepted(team, host):
    assert raw(team, "GET", "/", "rita", Host=host)[0] == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "http://localhost:8888",
        "null",
        "https://tracking.example.com.evil.example",
        "https://eviltracking.example.com",
    ],
)
def test_a_page_of_another_site_changes_nothing(team, origin):
    answer = team.post("experiments/create", {"name": f"of {origin}"}, "admin", headers={"Origin": origin})
    assert answer.status_code == 403
    shown = team.post("experiments/search", {"max_results": 100}, "admin").json()["experiments"]
    assert not any(each["name"].startswith("of ") for each in shown)


def test_a_page_of_another_site_is_not_shown_anything(team):
    answer = team.ask("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", user="admin",
                      headers={"Origin": "https://evil.example.com"})  # fmt: skip
    assert answer.headers.get("Access-Control-Allow-Origin") is None


@pytest.mark.parametrize("origin", ["https://tracking.example.com", None])
def test_its_own_pages_change_things(team, origin, run):
    tag = {"run_id": run["id"], "key": "seen", "value": "yes"}
    headers = {"Origin": origin or team.address}
    assert team.post("runs/set-tag", tag, "wim", headers=headers).ok


# Paths

CLIMBS = [
    "../../../etc/passwd",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%252e%252e%252f%252e%252e%252fetc%252fpasswd",
    "%25252e%25252e%25252fetc%25252fpasswd",
    "..%5c..%5cetc%5cpasswd",
    "..\\..\\etc\\passwd",
    "%c0%ae%c0%ae/etc/passwd",
    "....//....//etc/passwd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "file:///etc/passwd",
    "x/%00/../../etc/passwd",
    "mlflow.db/../../mlflow.db",
]


@pytest.mark.parametrize("climb", CLIMBS)
@pytest.mark.parametrize("user", ["admin", "wim"])
def test_no_path_leads_out_of_the_artifacts(team, run, climb, user):
    folder = Path(team.folder)
    before = {path for path in folder.rglob("*") if path.is_file()}
    kept = Path("/etc/passwd").read_bytes()
    targets = [
        f"{run['place']}/{climb}",
        f"{ARTIFACTS}/{climb}",
        f"/ajax-api/2.0/mlflow-artifacts/artifacts/{climb}",
    ]
    for target in targets:
        for method in ("GET", "PUT", "GET"):
            status, content = raw(team, method, target.replace("\\", "%5C"), user)
            assert b"root:" not in content
            # a strange name is only a name; whatever means a way up is refused
            assert status >= 400 or _inside(folder, before), (method, target)
    file = raw(team, "GET", f"/get-artifact?run_uuid={run['id']}&path={climb}", user)[1]
    assert b"root:" not in file
    listing = raw(team, "GET", f"/api/2.0/mlflow/artifacts/list?run_id={run['id']}&path={climb}", user)
    assert listing[0] >= 400 or not json.loads(listing[1]).get("files")
    assert Path("/etc/passwd").read_bytes() == kept
    assert _inside(folder, before)


def _inside(folder: Path, before: set[Path]) -> bool:
    """Whether new files are among the artifacts alone."""
    new = {path for path in folder.rglob("*") if path.is_file()} - before
    return all(
        path.is_relative_to(folder / "mlartifacts") for path in new if not path.name.startswith(".mlflow")
    )


def test_an_experiment_keeps_its_artifacts_where_the_server_does(team, tmp_path):
    for place in (
        "/etc",
        "file:///etc",
        f"file://{tmp_path}",
        "s3://elsewhere/x",
        "../..",
        "ftp://a.example/x",
    ):
        body = {"name": f"at {place}", "artifact_location": place}
        assert team.post("experiments/create", body, "wim").status_code == 400
        answer = team.ask("POST", "/ajax-api/2.0/mlflow/experiments/create", user="wim", json=body)
        assert answer.status_code == 400


def test_a_model_comes_from_a_run_of_the_server(team, run):
    assert team.post("registered-models/create", {"name": "foreign"}, "wim").ok
    for source in ("/etc", "file:///etc", "../../etc", "http://169.254.169.254/x"):
        body = {"name": "foreign", "source": source, "run_id": run["id"]}
        assert team.post("model-versions/create", body, "wim").status_code >= 400, source


@pytest.mark.parametrize(
    "path",
    [
        "/ajax-api/3.0/mlflow/assistant/message",
        "/ajax-api/3.0/mlflow/assistant/providers/claude_code/health",
        "/gateway/mlflow/v1/models",
        "/api/3.0/mlflow/gateway/secrets/create",
        "/api/2.0/mlflow/webhooks",
        "/ajax-api/3.0/mlflow/jobs/search",
        "/v1/traces",
        "/signup",
    ],
)
def test_parts_that_run_commands_or_ask_other_servers_are_closed(team, path):
    for method in ("GET", "POST"):
        assert team.ask(method, path, user="admin", json={} if method == "POST" else None).status_code == 404


@pytest.mark.parametrize("path", NOTHING)
@pytest.mark.parametrize("version", ["/ajax-api/2.0", "/ajax-api/3.0"])
def test_what_pages_ask_of_closed_parts_is_answered_with_nothing(team, path, version):
    answer = team.ask("GET", f"{version}{path}", user="rita")
    assert (answer.status_code, answer.json()) == (200, NOTHING[path])
    assert team.ask("POST", f"{version}{path}", user="admin", json={}).status_code == 404
    assert team.ask("PUT", f"{version}{path}", user="admin", json={}).status_code == 404


def test_the_pages_are_told_who_is_there(team):
    answer = team.ask("GET", "/ajax-api/2.0/mlflow/users/current", user="rita").json()
    assert (answer["user"]["username"], answer["user"]["is_admin"]) == ("rita", False)


# Sizes


def test_an_upload_that_is_too_large_is_refused_and_leaves_nothing(team, run):
    before = set((team.folder / "mlartifacts").rglob("*"))
    said = team.ask("PUT", f"{run['place']}/big.bin", user="wim", data=b"x" * 3_000_000)
    assert said.status_code == 413
    assert "2.0 MB" in said.text
    parts = (b"x" * 500_000 for _ in range(8))  # no length is told beforehand
    said = team.ask("PUT", f"{run['place']}/big.bin", user="wim", data=parts)
    assert said.status_code == 413
    assert set((team.folder / "mlartifacts").rglob("*")) == before


def test_an_upload_below_the_limit_is_taken_whole(team, run):
    content = bytes(range(256)) * 7_000
    assert team.ask("PUT", f"{run['place']}/weights.bin", user="wim", data=io.BytesIO(content)).ok
    assert team.ask("GET", f"{run['place']}/weights.bin", user="rita").content == content


def test_a_request_that_is_too_large_is_refused(team):
    assert team.post("runs/search", {"filter": "x" * 33_000_000}, "wim").status_code == 413


def test_strangers_cannot_make_it_read_much(team):
    said = team.ask("POST", "/api/2.0/mlflow/runs/search", data=b"x" * 20_000_000)
    assert said.status_code == 401
    said = team.ask("PUT", f"{ARTIFACTS}/0/x", data=(b"x" * 1_000_000 for _ in range(20)))
    assert said.status_code == 401


def test_it_still_serves_and_said_no_secret(team):
    assert team.ask("GET", "/health").ok
    said = team.said()
    for secret in (*team.users.values(), (team.folder / ".nfbmr/server/secret_key").read_text().strip()):
        assert secret not in said
    assert "Traceback" not in said, said
