"""What watches django-sked from outside: nothing here is imported, or costs anything, unless a project asks for it."""
