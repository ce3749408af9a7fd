"""A workflow as a chain, and verbs on the whole of it."""

from __future__ import annotations

from django_sked.states import Status
from shop import services
from shop.tests.base import ShopTestCase


class StockTakingTests(ShopTestCase):
    """A chain with a part of several messages, and verbs on the whole of it."""

    def test_the_warehouse_opens_when_every_shelf_is_counted(self) -> None:
        stock_taking = services.take_stock(["left", "right"])
        self.assertEqual(
            self.after(0), ["stock.close delivered", *["stock.count delivered"] * 2, "stock.open delivered"]
        )
        self.assertEqual(self.subjects(), ["The warehouse is closed", "The warehouse is open: 9 pieces"])
        self.assertEqual(stock_taking.counts, {Status.DELIVERED: 4})

    def test_it_is_interrupted_and_goes_on(self) -> None:
        stock_taking = services.take_stock(["left"])
        self.assertEqual(services.interrupt_stock_taking(stock_taking), 3)
        self.assertEqual(self.after(0), [])
        self.assertEqual(services.go_on_with_stock_taking(stock_taking), 3)
        self.assertEqual(self.after(0), ["stock.close delivered", "stock.count delivered", "stock.open delivered"])

    def test_a_shelf_that_nobody_can_reach_is_counted_another_day(self) -> None:
        stock_taking = services.take_stock(["top"])
        self.assertEqual(self.after(0), ["stock.close delivered", "stock.count dead"])
        self.assertEqual(stock_taking.counts[Status.CANCELLED], 1)
        services.go_on_with_stock_taking(stock_taking)
        self.assertEqual(stock_taking.counts, {Status.DELIVERED: 1, Status.SCHEDULED: 1, Status.BLOCKED: 1})

    def test_it_is_given_up(self) -> None:
        stock_taking = services.take_stock(["left", "right"])
        self.assertEqual(services.give_up_stock_taking(stock_taking), 4)
        self.assertEqual(self.after(0), [])
