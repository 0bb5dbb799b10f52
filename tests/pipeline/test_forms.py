"""What arrives where: the richest form that a channel takes, the picture, and what is too long for it."""

import base64
import io
import re
import sys
import zlib
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as modern
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from billingwatch.model import Channel
from notify import send
from notify.cause import Delivery
from notify.telling import Message
from tests.pipeline.senders import Mailbox, Moody


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


# One white pixel.
PNG = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", bytes([0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]))
    + chunk(b"IDAT", zlib.compress(b"\0\xff"))
    + chunk(b"IEND", b"")
)
MESSAGE = Message(
    "CRITICAL: payments failing on default: 41 %, usually 6 %",
    "24 of 58 checkout payments failed\nSince 14:05 UTC – 25 min\n\nIn Stripe: https://dashboard.stripe.com/payments",
    "**24 of 58** checkout payments failed",
    "<p><b>24 of 58</b> checkout payments failed</p>",
)
LONG = Message(
    "title", "\n".join(f"line {number} {'x' * 90}" for number in range(400)), "**" + "m" * 40_000, "h" * 40_000
)

# As RFC 2822 has it: a mixed mail of two alternatives and a picture. CRLF at the end of each line.
MAIL = """\
Content-Type: multipart/mixed; boundary="OUTER"
MIME-Version: 1.0
X-Application: BillingWatch
Subject: CRITICAL: payments failing on default: 41 %, usually 6 %
From: bw@shop.example
To: ops@shop.example
Message-ID: <ID>
Date: DATE

--OUTER
Content-Type: multipart/alternative; boundary="INNER"
MIME-Version: 1.0

--INNER
Content-Type: text/plain; charset="utf-8"
MIME-Version: 1.0
Content-Transfer-Encoding: quoted-printable

24 of 58 checkout payments failed
Since 14:05 UTC =E2=80=93 25 min

In Stripe: https://dashboard.stripe.com/payments
--INNER
Content-Type: text/html; charset="utf-8"
MIME-Version: 1.0
Content-Transfer-Encoding: quoted-printable

<p><b>24 of 58</b> checkout payments failed</p>
--INNER--

--OUTER
Content-Transfer-Encoding: base64
MIME-Version: 1.0
Content-Type: image/png
Content-Disposition: attachment; filename="chart.png"

PNG

--OUTER--
"""


def normal(content: bytes) -> bytes:
    """Without what differs from one mail to the next."""
    for name in (b"OUTER", b"INNER"):
        found = re.search(rb'boundary="(=+\d+=+)"', content)
        assert found is not None
        content = content.replace(found[1], name)
    content = re.sub(rb"\r\nMessage-ID: <[^>\r]+@127\.0\.0\.1>\r\n", b"\r\nMessage-ID: <ID>\r\n", content)
    return re.sub(rb"\r\nDate: \w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\r\n", b"\r\nDate: DATE\r\n", content)


def parsed(content: bytes) -> EmailMessage:
    mail = message_from_bytes(content, policy=modern)
    assert isinstance(mail, EmailMessage)
    return mail


def test_mail_byte_for_byte(smtp: tuple[str, Mailbox]) -> None:
    url, mailbox = smtp
    assert send.send(Channel(f"{url}&to=ops@shop.example"), MESSAGE, picture=PNG) == Delivery(ok=True)
    [(sender, recipients, content)] = mailbox.mails
    assert (sender, recipients) == ("bw@shop.example", ["ops@shop.example"])
    picture = base64.encodebytes(PNG).decode()
    assert normal(content).decode() == MAIL.replace("PNG\n", picture).replace("\n", "\r\n")


def test_mail_without_a_picture_has_two_alternatives_and_the_plain_one_is_ours(smtp: tuple[str, Mailbox]) -> None:
    url, mailbox = smtp
    assert send.send(Channel(f"{url}&to=ops@shop.example"), MESSAGE).ok
    mail = parsed(mailbox.mails[0][2])
    assert mail.get_content_type() == "multipart/alternative"
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().splitlines() == MESSAGE.text.splitlines()
    assert html.get_content().strip() == MESSAGE.html


def test_mail_of_a_message_without_html_is_plain(smtp: tuple[str, Mailbox]) -> None:
    url, mailbox = smtp
    assert send.send(Channel(f"{url}&to=ops@shop.example"), Message("title", "one < two\nthree")).ok
    mail = parsed(mailbox.mails[0][2])
    assert (mail.get_content_type(), mail["Subject"]) == ("text/plain", "title")
    assert mail.get_content().splitlines() == ["one < two", "three"]


def test_mail_that_is_asked_for_as_text_is_text(smtp: tuple[str, Mailbox]) -> None:
    url, mailbox = smtp
    assert send.send(Channel(f"{url}&to=ops@shop.example&format=text"), MESSAGE).ok
    assert parsed(mailbox.mails[0][2]).get_content_type() == "text/plain"


def test_mail_with_the_picture_in_its_place_keeps_our_plain_part(smtp: tuple[str, Mailbox]) -> None:
    url, mailbox = smtp
    assert send.send(Channel(f"{url}&to=ops@shop.example&inline=yes"), MESSAGE, picture=PNG).ok
    mail = parsed(mailbox.mails[0][2])
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().splitlines() == MESSAGE.text.splitlines()
    assert 'src="cid:chart.png"' in html.get_content()
    assert mail.get_content_type() == "multipart/related"


@pytest.mark.parametrize(
    ("asked", "form"),
    [("", "text"), ("?format=text", "text"), ("?format=markdown", "markdown"), ("?format=html", "html")],
)
def test_json_carries_what_the_url_asks_for(moody: Moody, asked: str, form: str) -> None:
    assert send.send(Channel(moody.url(f"in/200{asked}")), MESSAGE).ok
    [(_, body)] = moody.seen
    assert (body["title"], body["message"]) == (MESSAGE.title, getattr(MESSAGE, form))


def test_chat_of_markdown_gets_it_with_the_title_above(moody: Moody) -> None:
    url = f"rocket://{'a' * 24}%2F{'b' * 24}@127.0.0.1:{moody.server_port}/#ops"
    message = Message("CRITICAL: card_testing on acct_1_x: [41] *%*", "text", "**24 of 58** failed")
    assert send.send(Channel(url), message).ok
    [(_, body)] = moody.seen
    assert "**24 of 58** failed" in body["text"]
    assert "card_testing on acct_1_x" in body["text"]  # nothing in the title turns into markup
    assert r"\[41\] \*%\*" in body["text"]


def test_no_icon_of_apprise_is_fetched_by_the_chat(moody: Moody) -> None:
    assert send.send(Channel(f"mmost://127.0.0.1:{moody.server_port}/{'a' * 24}"), MESSAGE).ok
    [(_, body)] = moody.seen
    assert "apprise" not in str(body).lower()
    assert body["text"].splitlines() == [MESSAGE.title, *MESSAGE.text.splitlines()]


def test_what_is_too_long_is_cut_at_a_line_and_delivered(moody: Moody) -> None:
    assert send.send(Channel(f"mmost://127.0.0.1:{moody.server_port}/{'a' * 24}"), LONG).ok
    [(_, body)] = moody.seen
    assert 3500 < len(body["text"]) <= 4000
    title, *lines, end = body["text"].splitlines()
    assert (title, end) == ("title", "…")
    assert lines == LONG.text.splitlines()[: len(lines)]


def test_the_url_decides_how_what_is_too_long_is_told(moody: Moody) -> None:
    url = f"mmost://127.0.0.1:{moody.server_port}/{'a' * 24}?overflow=upstream"
    assert send.send(Channel(url), LONG).ok
    [(_, body)] = moody.seen
    assert len(body["text"]) > 30_000


def test_mail_whose_html_is_too_long_falls_back_to_text(smtp: tuple[str, Mailbox]) -> None:
    url, mailbox = smtp
    assert send.send(Channel(f"{url}&to=ops@shop.example"), LONG).ok
    mail = parsed(mailbox.mails[0][2])
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content().splitlines()[-1] == "…"


@pytest.mark.parametrize("length", [0, 1, 2, 5, 10, 17, 18, 100])
def test_shortened(length: int) -> None:
    short = send._shortened("one\ntwo\nthree four", length)
    assert len(short) <= max(length, 18 if length < 2 else 0)
    assert length < 18 or short == "one\ntwo\nthree four"
    assert length != 10 or short == "one\ntwo\n…"


def test_every_service_that_takes_pictures_reads_this_one(moody: Moody) -> None:
    """From a path, for some of them: form:// opens the file."""
    assert send.send(Channel(moody.url("in/200", "form")), MESSAGE, picture=PNG).ok
    [(_, headers, body)] = moody.posted
    assert headers["content-type"].startswith("multipart/form-data")
    assert PNG in body
    assert b'filename="chart.png"' in body
    assert send.send(Channel(moody.url("in/200")), MESSAGE, picture=PNG).ok
    [attachment] = moody.seen[-1][1]["attachments"]
    assert base64.b64decode(attachment["base64"]) == PNG
    assert (attachment["filename"], attachment["mimetype"]) == ("chart.png", "image/png")


def test_ntfy_gets_the_words_with_the_picture(moody: Moody) -> None:
    assert send.send(Channel(f"ntfy://127.0.0.1:{moody.server_port}/ops"), MESSAGE, picture=PNG).ok
    [(path, _, body)] = moody.posted
    assert body == PNG
    assert parse_qs(urlsplit(path).query)["message"] == [MESSAGE.text]


@pytest.mark.parametrize(("status", "tries"), [(413, 2), (400, 2), (401, 1), (500, 1)])
def test_a_picture_never_costs_the_message(moody: Moody, status: int, tries: int) -> None:
    """A service that may have refused the picture is sent the words alone."""
    told = send.send(Channel(moody.url(f"in/{status}")), MESSAGE, picture=PNG)
    assert [len(body["attachments"]) for _, body in moody.seen] == [1, 0][:tries]
    assert str(status) in told.error


def test_pictures_leave_no_file_behind(moody: Moody, smtp: tuple[str, Mailbox]) -> None:
    def files() -> int:
        return sum("chart.png" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())

    for path in ("in/200", "in/500", "in/413"):
        send.send(Channel(moody.url(path)), MESSAGE, picture=PNG)
    assert files() == 0


def test_which_channels_take_pictures() -> None:
    assert sys.platform == "linux"
    assert send.takes_pictures(Channel("mailto://bob:pw@shop.example"))
    assert not send.takes_pictures(Channel("console://"))
    assert not send.takes_pictures(Channel("rocket://h/hook"))
    assert not send.takes_pictures(Channel("slak://x"))


def test_console_takes_the_plain_words() -> None:
    out = io.StringIO()
    assert send.send(Channel("console://"), MESSAGE, stdout=out, picture=PNG, payload=b"{}").ok
    assert "24 of 58" in out.getvalue()
    assert "<b>" not in out.getvalue()
