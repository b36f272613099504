"""The bundled text; `NOTICE.md` says where it is from and under which terms."""
