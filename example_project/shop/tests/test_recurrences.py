"""What comes again and again: reports, offers, digests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from zoneinfo import ZoneInfo

from django.core.management import call_command
from django.utils import timezone

from django_sked.models import Recurrence, ScheduledMessage
from django_sked.testing import deliver_due, freeze
from shop import services
from shop.tests.base import DAY, ShopTestCase


class RecurrenceTests(ShopTestCase):
    def test_the_week_is_reported_on_monday_at_nine(self) -> None:
        call_command("sked_sync", stdout=StringIO())
        (tick,) = Recurrence.objects.get(name="report.weekly").next_ticks(1)
        self.assertEqual((tick.weekday(), tick.hour), (0, 9))
        deliver_due(now=tick)
        self.assertEqual(self.subjects().count("The week in the shop"), 1)

    def test_the_balance_is_written_on_working_days(self) -> None:
        call_command("sked_sync", stdout=StringIO())
        (tick,) = Recurrence.objects.get(name="invoices.balance").next_ticks(1)
        self.assertLess(tick.weekday(), 5)
        deliver_due(now=tick)
        self.assertIn("Unpaid invoices", self.subjects())

    def test_an_offer_is_repeated_so_many_times(self) -> None:
        recurrence = services.repeat_offer("coffee", self.customer, every=DAY, times=2)
        start = timezone.now()
        for day in range(1, 5):
            deliver_due(now=start + day * DAY + timedelta(seconds=5))
        self.assertEqual(self.subjects(), ["Our offer: coffee"] * 2)
        recurrence.refresh_from_db()
        self.assertEqual((recurrence.status, recurrence.successes), ("ended", 2))

    def test_offers_come_on_the_four_sundays_of_advent_and_on_no_other(self) -> None:
        berlin = ZoneInfo("Europe/Berlin")
        with freeze(datetime(2030, 11, 1, tzinfo=UTC)) as time:
            recurrence = services.offer_in_advent(self.customer, 2030)
            sundays = [datetime(2030, 12, day, 16, tzinfo=berlin) for day in (1, 8, 15, 22)]
            self.assertEqual(recurrence.next_ticks(5), sundays)
            for day in range(90):
                time.move_to(datetime(2030, 11, 1, 18, tzinfo=UTC) + day * DAY)
                deliver_due()
        self.assertEqual(self.subjects(), ["Our offer: advent"] * 4)
        recurrence.refresh_from_db()
        self.assertEqual((recurrence.status, recurrence.successes), ("ended", 4))

    def test_the_pick_list_comes_on_working_mornings_only(self) -> None:
        call_command("sked_sync", stdout=StringIO())
        recurrence = Recurrence.objects.get(name="warehouse.pick_list")
        self.assertEqual(recurrence.trigger, {"kind": "shop.working-day", "hour": 7})
        self.assertEqual(recurrence.explain(), "At 07:00 on each working day, Europe/Berlin")
        # From the Friday before Christmas: a week end, two days, the holidays.
        friday = datetime(2030, 12, 20, 7, tzinfo=ZoneInfo("Europe/Berlin"))
        days = [tick.day for tick in recurrence.next_ticks(4, after=friday)]
        self.assertEqual(days, [23, 24, 27, 30])
        with freeze(recurrence.next_ticks(1)[0]):
            deliver_due()
        self.assertEqual(self.subjects().count("To be packed today"), 1)

    def test_the_catalogue_is_read_page_by_page_to_its_end(self) -> None:
        call_command("sked_sync", stdout=StringIO())
        start = timezone.now()
        for minute in range(0, 60, 5):
            deliver_due(now=start + timedelta(minutes=minute, seconds=20))
        recurrence = Recurrence.objects.get(name="catalogue.import")
        self.assertEqual((recurrence.status, recurrence.reason), ("ended", "the catalogue is read"))
        self.assertEqual(recurrence.payload, {"page": 4})

    def test_an_offer_rests_goes_on_and_is_made_up_for(self) -> None:
        services.repeat_offer("tea", self.customer, every=timedelta(hours=1), times=100)
        self.assertTrue(services.rest_offer("tea", "sold out"))
        deliver_due(now=timezone.now() + timedelta(hours=5))
        self.assertEqual(self.subjects(), [])
        self.assertTrue(services.go_on_with_offer("tea", "new harvest"))
        self.assertEqual(Recurrence.objects.get(name="offer.tea").reason, "new harvest")
        services.offer_at_once("tea")
        deliver_due()
        self.assertEqual(self.subjects(), ["Our offer: tea"])
        now = timezone.now()
        self.assertEqual(len(services.make_up_for_offers("tea", now - timedelta(hours=3), now)), 3)

    def test_an_offer_is_repeated_more_often(self) -> None:
        services.repeat_offer("tea", self.customer, every=timedelta(hours=24), times=100)
        services.repeat_offer_more_often("tea", timedelta(hours=1))
        first, second = Recurrence.objects.get(name="offer.tea").next_ticks(2)
        self.assertEqual(second - first, timedelta(hours=1))

    def test_an_invitation_comes_by_the_clocks_of_the_customer(self) -> None:
        message = services.invite(self.customer, datetime(2030, 7, 1, 9), "Asia/Tokyo")
        self.assertEqual(message.due_at, datetime(2030, 7, 1, tzinfo=UTC))
        self.assertEqual((message.at_local, message.timezone), (datetime(2030, 7, 1, 9), "Asia/Tokyo"))


class DigestTests(ShopTestCase):
    def test_there_is_one_digest_a_day(self) -> None:
        self.assertTrue(services.start_daily_digest())
        self.assertFalse(services.start_daily_digest())
        first = ScheduledMessage.objects.find(key="digest")
        deliver_due(now=first.due_at)
        self.assertEqual(self.subjects(), ["The day in the shop"])
        self.assertNotEqual(ScheduledMessage.objects.find(key="digest").pk, first.pk)
