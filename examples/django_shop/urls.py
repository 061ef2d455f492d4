"""Addresses of the shop."""

from django.contrib import admin
from django.urls import path
from shop import views

urlpatterns = [
    path("orders/<str:item>", views.place_order),
    path("admin/", admin.site.urls),
]
