"""The admin's pages read and change through the library, and check permissions."""

from typing import Any

from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import TransactionTestCase

import durable_notify as dn
from durable_notify.integrations.django import Consumer
from durable_notify.integrations.django.test import MessagesMixin

LETTERS = "/admin/durable_notify/deadletter/"
GROUPS = "/admin/durable_notify/group/"
admin = dn.Admin()


def reject(message: dn.Message) -> None:
    message.reject("<script>no</script>")


class Pages(MessagesMixin, TransactionTestCase):
    def setUp(self) -> None:
        publisher = dn.Publisher()
        self.ids = [
            publisher.publish(connection, topic, {"name": name}, key=name)
            for topic, name in (("orders", "ann"), ("orders", "bob"), ("invoices", "<i>cy</i>"))
        ]
        for group in ("billing", "a/b"):
            consumer = Consumer(group=group, topics=["orders", "invoices"])
            self.drain(consumer, reject if group == "billing" else str)
        self.client.force_login(User.objects.create_superuser("root"))

    def letters(self) -> list[int]:
        return [letter.id for letter in admin.dead_letters(connection, "billing")]

    def test_the_list(self) -> None:
        page = self.client.get(LETTERS)
        assert sorted(self.letters()) == sorted(self.ids)
        for message_id in self.ids:
            self.assertContains(page, f"{LETTERS}{message_id}/billing/")
        self.assertContains(page, "&lt;script&gt;no")
        self.assertNotContains(page, "<script>no")
        self.assertContains(self.client.get("/admin/"), LETTERS)
        filtered = self.client.get(LETTERS, {"topic": "orders", "key": "bob", "group": "billing"})
        assert [letter.id for letter in filtered.context["letters"]] == [self.ids[1]]
        nothing = self.client.get(LETTERS, {"error_type": "KeyError"})
        self.assertContains(nothing, "No dead letters")
        self.assertContains(self.client.get(LETTERS, {"group": "gone"}), "gone")

    def test_one(self) -> None:
        page = self.client.get(f"{LETTERS}{self.ids[2]}/billing/")
        self.assertContains(page, "&lt;i&gt;cy")
        assert self.client.get(f"{LETTERS}99/billing/").status_code == 404
        assert self.client.get(f"{LETTERS}99/a/b/").status_code == 404
        assert self.client.get(f"{LETTERS}99/gone/").status_code == 404

    def test_redrive_and_discard(self) -> None:
        for action, message_id in zip(("redrive", "discard"), self.ids, strict=False):
            given: dict[str, Any] = {"action": action, "chosen": [f"{message_id}/billing"]}
            asked = self.client.post(LETTERS, given)
            self.assertContains(asked, "Why, for the audit")
            assert message_id in self.letters()
            done = self.client.post(LETTERS, {**given, "confirmed": "1", "why": "x"}, follow=True)
            self.assertContains(done, f"Dead letters {action.removesuffix('e')}")
            assert message_id not in self.letters()
        why = [(entry.action, entry.why) for entry in admin.audit(connection, "billing", limit=2)]
        assert why == [("discard", "root: x"), ("redrive", "root: x")]
        assert self.letters() == [self.ids[2]]
        nothing = self.client.post(LETTERS, {"action": "redrive"}, follow=True)
        self.assertContains(nothing, "Select the dead letters first")

    def test_pause_and_resume(self) -> None:
        self.assertContains(self.client.get(GROUPS), "billing")
        for action, state in (("pause", "paused since"), ("resume", "running")):
            page = self.client.post(GROUPS, {"action": action, "group": "a/b"}, follow=True)
            self.assertContains(page, f"Group a/b: {action}d")
            paused = {group.name: group.paused_at for group in admin.groups(connection)}
            assert (paused["a/b"] is not None) == (state == "paused since")
            self.assertContains(page, state)
        self.client.post(GROUPS, {"action": "pause", "group": "gone"}, follow=True)

    def test_permissions(self) -> None:
        user = User.objects.create_user("viewer", is_staff=True)
        self.client.force_login(user)
        assert self.client.get(LETTERS).status_code == 403
        assert self.client.get(GROUPS).status_code == 403
        views = Permission.objects.filter(codename__in=["view_deadletter", "view_group"])
        user.user_permissions.set(views.filter(content_type__app_label="durable_notify"))
        page = self.client.get(LETTERS)
        self.assertNotContains(page, "Redrive")
        self.assertNotContains(self.client.get(GROUPS), "Pause")
        chosen = [f"{self.ids[0]}/billing"]
        for action in ("redrive", "discard", "pause"):
            given = {"action": action, "chosen": chosen, "group": "billing", "confirmed": "1"}
            assert self.client.post(LETTERS, given).status_code == 403
            assert self.client.post(GROUPS, given).status_code == 403
        user.user_permissions.add(Permission.objects.get(codename="redrive_deadletter"))
        given = {"action": "redrive", "chosen": chosen, "confirmed": "1"}
        assert self.client.post(LETTERS, given).status_code == 302
        assert self.client.post(LETTERS, {**given, "action": "discard"}).status_code == 403
        assert self.client.post(LETTERS, {**given, "chosen": ["x/billing"]}).status_code == 403
        self.client.logout()
        assert self.client.get(LETTERS).status_code == 302
