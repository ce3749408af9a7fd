"""What watches django-sked from outside: nothing here is imported, or costs anything, unless your project asks for it."""
