"""Whether this process should live, and whether it should be given work."""

from flask import Blueprint, Flask, Response, jsonify
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from shop import database

blueprint = Blueprint("shutdown", __name__)


def init_app(app: Flask) -> None:
    """Add the probes."""
    app.register_blueprint(blueprint)


@blueprint.get("/livez")
def livez() -> Response:
    """The process answers. It asks nothing of others: their failure is no reason to restart this one."""
    return jsonify({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """The process can do its work: the database answers."""
    try:
        with database.engine().connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return jsonify({"status": "unavailable", "database": "unreachable"}), 503
    return jsonify({"status": "ok"}), 200
