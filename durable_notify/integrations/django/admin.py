"""Admin pages: dead letters, to redrive or discard; groups, to pause or resume."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import connections, router
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from durable_notify._sync.admin.admin import Admin
from durable_notify.errors import DurableNotifyError

from .models import DeadLetter, Group

if TYPE_CHECKING:
    from django.http import HttpRequest

    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin

__all__ = ["DeadLetterAdmin", "GroupAdmin"]

#: How many dead letters a page lists.
PAGE = 200
#: How many messages a count of a page may count; a larger one is estimated.
COUNT = 10_000

_api = Admin()


class _Pages(_ModelAdmin):
    """Pages whose rows come from ``Admin``, within the frame of Django's admin."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: there is nothing to add, to change or to delete by Django's forms."""
        del request, obj
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def _connection(self, *, write: bool = False) -> Any:
        find = router.db_for_write if write else router.db_for_read
        return connections[find(self.model)]

    def _check(self, request: HttpRequest, action: str = "view") -> None:
        if not self._may(request, action):
            raise PermissionDenied

    def _may(self, request: HttpRequest, action: str) -> bool:
        user: Any = request.user
        return bool(user.has_perm(f"{self.opts.app_label}.{action}_{self.opts.model_name}"))

    def _page(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        whole = {
            **self.admin_site.each_context(request), "opts": self.opts,
            "title": self.opts.verbose_name_plural, "index": self._index(), **context,
        }  # fmt: skip
        return TemplateResponse(request, f"admin/durable_notify/{template}.html", whole)

    def _index(self) -> str:
        return reverse(f"{self.admin_site.name}:durable_notify_{self.opts.model_name}_changelist")


class Filters(forms.Form):
    """Which dead letters to list."""

    group = forms.CharField(required=False)
    topic = forms.CharField(required=False)
    key = forms.CharField(required=False)
    error_type = forms.CharField(required=False, label="Exception")


@admin.register(DeadLetter)
class DeadLetterAdmin(_Pages):
    """Lists dead letters with filters, shows one, redrives and discards those selected."""

    def get_urls(self) -> list[Any]:
        """Return the pages: the list, and one dead letter."""
        guarded = self.admin_site.admin_view
        name = "durable_notify_deadletter"
        return [
            path("", guarded(self.list_page), name=f"{name}_changelist"),
            path(
                "<int:message_id>/<path:group>/", guarded(self.detail_page), name=f"{name}_change"
            ),
        ]

    def list_page(self, request: HttpRequest) -> HttpResponse:
        """List dead letters; of a POST, ask whether to act, or act."""
        self._check(request)
        if request.method == "POST":
            return self._act(request)
        form = Filters(request.GET)
        given = form.cleaned_data if form.is_valid() else {}
        group = given.pop("group", "") or None
        conditions: Any = {name: value for name, value in given.items() if value}
        letters: list[Any] = []
        try:
            letters = _api.dead_letters(self._connection(), group, limit=PAGE + 1, **conditions)
        except DurableNotifyError as error:
            messages.error(request, str(error))
        may = {action: self._may(request, action) for action in ("redrive", "discard")}
        rows, more = letters[:PAGE], len(letters) > PAGE
        return self._page(
            request, "dead_letters", form=form, letters=rows, more=more, may=may, page=PAGE
        )

    def detail_page(self, request: HttpRequest, group: str, message_id: int) -> HttpResponse:
        """Show a dead letter, its payload and its error."""
        self._check(request)
        try:
            found = _api.dead_letters(self._connection(), group, ids=message_id)
        except DurableNotifyError as error:
            raise Http404(str(error)) from error
        if not found:
            raise Http404(f"group {group} has no dead letter {message_id}")
        letter = found[0]
        return self._page(
            request, "dead_letter", letter=letter, title=f"Dead letter {letter.id}",
            payload=_shown(letter.payload), headers=_shown(letter.headers),
        )  # fmt: skip

    def _act(self, request: HttpRequest) -> HttpResponse:
        action = request.POST.get("action", "")
        if action not in {"redrive", "discard"}:
            raise PermissionDenied
        self._check(request, action)
        by_group: dict[str, list[int]] = {}
        for chosen in request.POST.getlist("chosen"):
            message_id, _, group = chosen.partition("/")
            if not message_id.isdecimal():
                raise PermissionDenied
            by_group.setdefault(group, []).append(int(message_id))
        if not by_group:
            messages.warning(request, "Select the dead letters first.")
            return HttpResponseRedirect(self._index())
        if "confirmed" not in request.POST:
            chosen_ones = request.POST.getlist("chosen")
            return self._page(
                request, "confirm", action=action, chosen=chosen_ones, title=f"{action.title()}?"
            )
        self._do(request, action, by_group)
        return HttpResponseRedirect(self._index())

    def _do(self, request: HttpRequest, action: str, by_group: dict[str, list[int]]) -> None:
        """Redrive or discard, and record who did it and why in the audit."""
        change = _api.redrive if action == "redrive" else _api.discard
        why = f"{request.user.get_username()}: {request.POST.get('why', '')}".rstrip(": ")
        try:
            done = sum(
                change(self._connection(write=True), group, ids=ids, why=why)
                for group, ids in by_group.items()
            )
        except DurableNotifyError as error:
            messages.error(request, str(error))
        else:
            past = "redriven" if action == "redrive" else "discarded"
            messages.success(request, f"Dead letters {past}: {done}.")


@admin.register(Group)
class GroupAdmin(_Pages):
    """Lists groups with what they have to do; pauses and resumes them."""

    def get_urls(self) -> list[Any]:
        """Return the one page."""
        page = self.admin_site.admin_view(self.list_page)
        return [path("", page, name="durable_notify_group_changelist")]

    def list_page(self, request: HttpRequest) -> HttpResponse:
        """List groups; of a POST, pause or resume one."""
        self._check(request)
        if request.method == "POST":
            self._act(request)
            return HttpResponseRedirect(self._index())
        connection = self._connection()
        lines = _api.status(connection, max_count=COUNT)
        groups = [
            {"group": group, "lines": [line for line in lines if line.group == group.name]}
            for group in _api.groups(connection)
        ]
        may = self._may(request, "pause")
        return self._page(request, "groups", groups=groups, may=may)

    def _act(self, request: HttpRequest) -> None:
        self._check(request, "pause")
        action, group = request.POST.get("action"), request.POST.get("group", "")
        if action not in {"pause", "resume"}:
            raise PermissionDenied
        change = _api.pause if action == "pause" else _api.resume
        try:
            change(self._connection(write=True), group)
        except DurableNotifyError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"Group {group}: {action}d.")


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
