"""A Django project in one file, with its admin.

By its host it needs nothing. Behind a prefix it has to put that before its links: `FORCE_SCRIPT_NAME`, Django's own
setting. Its development server finds no static files then; WhiteNoise, which projects use in production, does."""

import os
import sys

from django.conf import settings

settings.configure(
    DEBUG=True,
    SECRET_KEY="for a test",
    ALLOWED_HOSTS=[".localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    STATIC_URL="static/",
    FORCE_SCRIPT_NAME=os.environ.get("FORCE_SCRIPT_NAME"),
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DATABASE", "db.sqlite")}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
    ],
    MIDDLEWARE=[
        "whitenoise.middleware.WhiteNoiseMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
)

import django  # noqa: E402

django.setup()

from django.contrib import admin  # noqa: E402
from django.core.management import execute_from_command_line  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

urlpatterns = [
    path("", lambda request: HttpResponse("hello from django")),
    path("admin/", admin.site.urls),
]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
