from __future__ import annotations

import pytest

from boardfit.names import text_without_password, without_password

SECRET = (
    "pas",
    "pass",
    "passwd",
    "Password",
    "passphrase",
    "userpwd",
    "pwd1",
    "api_key",
    "token",
    "secret-id",
)
SECRET += ("auth", "authorization", "sig", "X-Signature", "jwt", "credential", "credentials")
SECRET += ("user[password]", "user%5Bpassword%5D", "pass%77ord", "me.pwd")
HARMLESS = ("author", "design", "signal", "keyframe", "compass", "key-int-max", "pwm", "bypass", "passenger")
HARMLESS += ("user[author]", "cam%5Bdesign%5D")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://cam/x", "rtsp://cam/x"),
        ("rtsp://me:geheim@cam/x", "rtsp://***@cam/x"),
        ("rtsp://me:gehe/im@cam/x", "rtsp://***@cam/x"),
        ("rtsp://me:gehe@im@cam/x", "rtsp://***@cam/x"),
        ("http://cam/?user=me&password=geheim&size=3", "http://cam/?user=me&password=***&size=3"),
        ("http://cam/?access_token=geheim", "http://cam/?access_token=***"),
        (
            "gst:rtspsrc location=rtsp://me:geheim@cam ! decodebin",
            "gst:rtspsrc location=rtsp://***@cam ! decodebin",
        ),
        (
            "gst:rtspsrc user-id=me user-pw=geheim ! decodebin",
            "gst:rtspsrc user-id=me user-pw=*** ! decodebin",
        ),
        ("me:geheim@192.168.1.20/stream", "***@192.168.1.20/stream"),
        ("me:geh eim@192.168.1.20/stream", "***@192.168.1.20/stream"),
        ("http://cam/?loginuse=admin&loginpas=geheim", "http://cam/?loginuse=admin&loginpas=***"),
        ("rtsp://me:ge heim@cam/x", "rtsp://***@cam/x"),
        ("http://cam/?pwd=ge heim&size=3", "http://cam/?pwd=***&size=3"),
        ('gst:rtspsrc user-pw="ge heim" ! decodebin', "gst:rtspsrc user-pw=*** ! decodebin"),
        ("gst:rtspsrc user-pw='ge heim' ! decodebin", "gst:rtspsrc user-pw=*** ! decodebin"),
        ('gst:rtspsrc "user-pw=ge heim" ! decodebin', 'gst:rtspsrc "user-pw=***" ! decodebin'),
        (r"gst:rtspsrc user-pw=ge\ heim ! decodebin", "gst:rtspsrc user-pw=*** ! decodebin"),
        ('gst:rtspsrc user-pw = "ge heim" ! decodebin', "gst:rtspsrc user-pw = *** ! decodebin"),
        (
            'gst:rtspsrc location="rtsp://me:ge heim@cam" ! x name=a',
            'gst:rtspsrc location="rtsp://***@cam" ! x name=a',
        ),
        *(
            (text, text)
            for text in ("/dev/video0", "synthetic:640x480@29.97", "picamera:1", "my film@home.avi")
        ),
        (
            r'gst:souphttpsrc extra-headers="a,Authorization=\"Basic geheim\"" ! y',
            r'gst:souphttpsrc extra-headers="a,Authorization=***',
        ),
        (
            r'gst:souphttpsrc extra-headers="a,Authorization=\"Basic ge ! heim\"" ! y',
            r'gst:souphttpsrc extra-headers="a,Authorization=***',
        ),
        ("rtsp://DOMAIN/me:geheim@cam/s", "rtsp://***@cam/s"),
        ("rtsp://me@dom.com:geheim@cam/s", "rtsp://***@cam/s"),
        ("me@dom.com:geheim@cam/s", "***@cam/s"),
        ("gst:x location=me@dom.com:geheim@cam", "gst:x location=***@cam"),
        ("http://DOMAIN/me:geheim@cam/s", "http://***@cam/s"),
        ("rtsp://u/x/y:ge/heim@cam", "rtsp://***@cam"),
        ("rtsp://admin:ge ! heim@cam/s", "rtsp://***@cam/s"),
        ("rtsp://my admin:geheim@cam/s", "rtsp://***@cam/s"),
        ("rtsp://cam/s?token=ge ! heim&x=1", "rtsp://cam/s?token=***&x=1"),
        ("DOMAIN/me:geheim@cam/s", "***@cam/s"),
        (" me:ge ! heim@cam/s", " ***@cam/s"),
        ('gst:x location="rtsp://me:ge ! heim@cam" ! y', 'gst:x location="rtsp://***@cam" ! y'),
        ("gst:x location=me:geheim@cam ! y", "gst:x location=***@cam ! y"),
        ("gst:x location=rtsp://h proxy = me:geheim@p ! y", "gst:x location=rtsp://h proxy = ***@p ! y"),
        ("x proxy='me:ge heim@p' name=a ! y b=a@1", "x proxy='***@p' name=a ! y b=a@1"),
        ("gst:x ! y user[password]=geheim", "gst:x ! y user[password]=***"),
        *((f"http://cam/?{word}=geheim", f"http://cam/?{word}=***") for word in SECRET),
        *((f"http://cam/?{word}=1", f"http://cam/?{word}=1") for word in HARMLESS),
        *((text, text) for text in ("http://cam/video@2x.mjpg", " synthetic:64x48@30")),
        *((text, text) for text in ("https://host/img@2x.jpg", "https://host/a:b/img@2x.jpg")),
        *((text, text) for text in ("http://host/?time=12:00&to=a@b", "rtsp://cam/s?time=12:00&to=a@b")),
        *(
            (text, text)
            for text in ("/data/12:30@home.avi", "./12:30/x@home.avi", "gst:x a=0:1 b=/i2c@1 ! y")
        ),
        *((text, text) for text in ("gst:x camera-name=/base/i2c@1/imx219@10 ! y", "gst:v4l2src ! z a=0:1")),
    ],
)
def test_addresses_show_no_password(text, shown):
    assert without_password(text) == shown
    assert "heim" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no such file: me:geheim@cam/x", "no such file: ***@cam/x"),
        ("[Errno 2] No such file: 'me:ge heim@cam/x'", "[Errno 2] No such file: '***@cam/x'"),
        ("(me:geheim@cam/s)", "(***@cam/s)"),
        ("(me@dom.com:geheim@cam/s)", "(***@cam/s)"),
        ("oh, rtsp://me@dom.com:geheim@cam/x is dead", "oh, rtsp://***@cam/x is dead"),
        ("me:geheim@cam/s failed", "***@cam/s failed"),
        ("failed: [DOMAIN/me:geheim@cam/s]", "failed: [***@cam/s]"),
        ("oh, rtsp://DOMAIN/me:geheim@cam/x is dead", "oh, rtsp://***@cam/x is dead"),
        ("oh, http://cam/?user%5Bpwd%5D=geheim is dead", "oh, http://cam/?user%5Bpwd%5D=*** is dead"),
        ("oh, rtsp://me:gehe/im@cam/x is dead", "oh, rtsp://***@cam/x is dead"),
        ("oh, http://cam/?token=geheim is dead", "oh, http://cam/?token=*** is dead"),
        *(
            (text, text)
            for text in (
                "error: contact support@vendor.com",
                "https://host/img@2x.jpg (of 12:00) is gone",
                "ENODEV: imx219@10 not found",
                "rtsp://cam1/x failed at 12:00; write to admin@example.com",
            )
        ),
    ],
)
def test_sentences_show_no_password_and_stay_as_they_are(text, shown):
    assert text_without_password(text) == shown


def test_long_texts_take_no_time():
    for text in ("/" * 5000, "key" * 2000, "a:" * 3000, "//a:b " * 1000, "//:" * 3000, "?a=" * 3000):
        shown = without_password(text)
        assert text_without_password(text) == shown
        assert text.startswith(shown.removesuffix("***")) and len(shown) <= len(text)


def test_where_a_long_text_is_cut_no_login_is_left():
    text = f"{'x ' * 1990}rtsp://me:geheim{'y' * 50}@cam"
    assert "geheim" not in without_password(text) + text_without_password(text)
