"""Many messages at once, and the queues that they wait in."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from django_sked.models import QueueControl, ScheduledMessage
from django_sked.testing import deliver_due
from shop import services
from shop.tests.base import DAY, ShopTestCase


class CampaignTests(ShopTestCase):
    def setUp(self) -> None:
        self.first_at = timezone.now() + DAY
        services.start_campaign("spring", first_at=self.first_at, every=timedelta(minutes=1), count=10)

    def test_a_campaign_is_paused_postponed_and_resumed(self) -> None:
        self.assertEqual(services.pause_campaign("spring"), 10)
        self.assertEqual(self.after(1), [])
        self.assertEqual(services.postpone_campaign("spring", by=DAY), 10)
        self.assertEqual(services.resume_campaign("spring"), 10)
        self.assertEqual(ScheduledMessage.objects.next_due_at("mail"), self.first_at + DAY)

    def test_an_offer_that_comes_too_late_does_not_come(self) -> None:
        self.after(3)
        self.assertEqual(self.subjects(), [])

    def test_a_campaign_is_stopped(self) -> None:
        deliver_due(now=self.first_at + timedelta(minutes=2, seconds=1))
        self.assertEqual(services.stop_campaign("spring"), 7)
        self.assertEqual(self.subjects(), ["Our offer: spring"] * 3)


class QueueTests(ShopTestCase):
    def test_reports_rest_and_go_on_and_the_page_says_so(self) -> None:
        services.rest_reports(until=timezone.now() + DAY, reason="the accountant counts")
        self.assertContains(self.client.get("/"), "the accountant counts")
        self.assertTrue(QueueControl.objects.get(queue="reports").is_paused(timezone.now()))
        self.assertTrue(services.go_on_with_reports())
        self.assertFalse(services.go_on_with_reports())
        self.assertNotContains(self.client.get("/"), "The queue reports")

    def test_mail_gets_more_threads_for_a_while(self) -> None:
        self.assertEqual(services.hurry_mail(6).concurrency, 6)
        self.assertIsNone(services.hurry_mail(None).concurrency)
