/* A link's system calls, with as few releases of the interpreter's lock as may be: none to send a line or to look
   whether something was said, one to wait for a grant.  And the grant as it mostly is, read without Python.

   Decides nothing.  What is not the usual case is left to `link.Link`, with nothing lost: bytes that came in and are
   not the one grant that is waited for are put where `Link` finds them (`messages.Lines`).  From the bytes' arrival
   until they are there, or the lock's holder is registered, no line of Python is run, so that no interrupt strikes in
   between (Python 3.11 collects garbage, whose finalizers are Python, at any allocation: it is kept from that); where
   one strikes while a thread waits here, nothing has happened, and the caller meets it.

   A "way" is what these functions need of a link: (socket, sending, reading, lines, holders).  Each function may be
   called by any thread, and gives up at once where another one sends or reads.

   Stable ABI: one build serves every Python from 3.11 on. */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

enum { SOCKET, SENDING, READING, LINES, HOLDERS, WAY };

#define CHUNK_BYTES (16 << 10)
#define LONGEST_LINE_BYTES 4096 /* a stream socket takes so little at once or not at all */
#define MODE_BYTES 2
#define AWAKE_MS 1000 /* `link.AWAKE_MS`; recv(2) keeps to it by SO_RCVTIMEO */

static PyObject *grant_type, *token_type, *modes, *no_value, *no_value_bytes;
static PyObject *s_acquire, *s_release, *s_locked, *s_fileno, *s_chunks, *s_state, *s_numbers, *s_undigested, *s_holder,
    *s_replies;

/* -- a grant ------------------------------------------------------------------------------------- */

struct grant {
    int64_t lock, seq, rep, position;
    char mode[MODE_BYTES + 1];
};

/* Each of these goes on at *at if what stands there is what it looks for, and never beyond end. */

static int text(const char **at, const char *end, const char *wanted, Py_ssize_t size)
{
    if (end - *at < size || memcmp(*at, wanted, (size_t)size) != 0)
        return 0;
    *at += size;
    return 1;
}

#define TEXT(at, end, wanted) text(at, end, wanted, sizeof(wanted) - 1)

static int number(const char **at, const char *end, int64_t *value)
{
    const char *began = *at;

    for (*value = 0; *at < end && **at >= '0' && **at <= '9'; *at += 1) {
        if (*at - began == 18)
            return 0; /* more than an int64 holds for certain */
        *value = *value * 10 + (**at - '0');
    }
    return *at > began && (*began != '0' || *at == began + 1); /* as JSON has numbers */
}

/* Whether these bytes are one whole line, and the grant of that request with a value block that nobody has written,
   as `wire.client` writes it. */
static int is_grant(const char *at, const char *end, const char *id, Py_ssize_t id_size, struct grant *grant)
{
    Py_ssize_t value_size = PyBytes_Size(no_value);
    int mode = 0;

    if (!(TEXT(&at, end, "{\"id\":\"") && text(&at, end, id, id_size)))
        return 0;
    if (!(TEXT(&at, end, "\",\"result\":{\"lock\":") && number(&at, end, &grant->lock)))
        return 0;
    if (!TEXT(&at, end, ",\"mode\":\""))
        return 0;
    while (mode < MODE_BYTES && at < end && *at >= 'A' && *at <= 'Z')
        grant->mode[mode++] = *at++;
    grant->mode[mode] = 0;
    return TEXT(&at, end, "\",\"token\":\"") && number(&at, end, &grant->seq) && TEXT(&at, end, ".") &&
           number(&at, end, &grant->rep) && TEXT(&at, end, ".") && number(&at, end, &grant->position) &&
           TEXT(&at, end, "\",\"lvb\":\"") && text(&at, end, PyBytes_AsString(no_value), value_size) &&
           TEXT(&at, end, "\",\"lvb_valid\":true,\"demoted\":false,\"altmode\":false}}\n") && at == end;
}

/* `messages.Grant`, its holder registered; NULL with an error that is none of ours (no memory): then the caller has
   the daemon take the lock back. */
static PyObject *registered(const struct grant *grant, PyObject *mode, PyObject *holders, PyObject *answer)
{
    PyObject *token, *found = NULL;
    PyObject *lock = PyLong_FromLongLong(grant->lock), *holder = PyObject_GetAttr(answer, s_holder);

    token = PyObject_CallFunction(token_type, "LLL", (long long)grant->seq, (long long)grant->rep,
                                  (long long)grant->position);
    if (token != NULL && lock != NULL)
        found = PyObject_CallFunctionObjArgs(grant_type, lock, mode, token, no_value_bytes, NULL);
    if (found != NULL && (holder == NULL || PyDict_SetItem(holders, lock, holder) < 0))
        Py_CLEAR(found);
    Py_XDECREF(token);
    Py_XDECREF(lock);
    Py_XDECREF(holder);
    return found;
}

/* -- what a link has ---------------------------------------------------------------------------- */

/* Of what was returned or read: whether it is true, or has anything in it; -1 with an error. */
static int is_true(PyObject *value)
{
    int found = value == NULL ? -1 : PyObject_IsTrue(value);

    Py_XDECREF(value);
    return found;
}

/* Whether nothing has been read that is not handed out: what comes next is the beginning of a line. */
static int is_clean(PyObject *lines)
{
    PyObject *state;
    int held;

    if ((held = is_true(PyObject_GetAttr(lines, s_undigested))) != 0 ||
        (held = is_true(PyObject_GetAttr(lines, s_chunks))) != 0)
        return held < 0 ? -1 : 0;
    if ((state = PyObject_GetAttr(lines, s_state)) == NULL)
        return -1;
    held = PyLong_AsSsize_t(PyTuple_GetItem(state, 1)) != PyBytes_Size(PyTuple_GetItem(state, 0));
    Py_DECREF(state);
    return PyErr_Occurred() ? -1 : !held;
}

/* Let `Link` find what was read; nothing at all is the end.  Returns -1 with an error. */
static int leave(PyObject *lines, const char *data, Py_ssize_t size)
{
    PyObject *numbers, *next = NULL, *chunk = NULL, *chunks = NULL;
    int done = -1;

    numbers = PyObject_GetAttr(lines, s_numbers);
    if (numbers != NULL && (next = PyIter_Next(numbers)) != NULL)
        chunk = Py_BuildValue("(Oy#)", next, data, size);
    if (chunk != NULL && (chunks = PyObject_GetAttr(lines, s_chunks)) != NULL && PyList_Append(chunks, chunk) == 0)
        done = PyObject_SetAttr(lines, s_undigested, Py_True);
    Py_XDECREF(numbers);
    Py_XDECREF(next);
    Py_XDECREF(chunk);
    Py_XDECREF(chunks);
    return done;
}

/* -1 with an error, if it is none. */
static int fd_of(PyObject *way)
{
    PyObject *number = PyObject_CallMethodObjArgs(PyTuple_GetItem(way, SOCKET), s_fileno, NULL);
    int fd = number == NULL ? -1 : (int)PyLong_AsLong(number);

    Py_XDECREF(number);
    return fd;
}

static int take_reading(PyObject *way)
{
    return is_true(PyObject_CallMethodObjArgs(PyTuple_GetItem(way, READING), s_acquire, Py_False, NULL));
}

/* Returns what is to be returned; an error that is set stays. */
static PyObject *let_go_of_reading(PyObject *way, PyObject *found)
{
    PyObject *kind, *value, *trace, *done;

    PyErr_Fetch(&kind, &value, &trace);
    done = PyObject_CallMethodObjArgs(PyTuple_GetItem(way, READING), s_release, NULL);
    if (done == NULL)
        Py_CLEAR(found);
    else if (kind != NULL)
        PyErr_Restore(kind, value, trace);
    Py_XDECREF(done);
    return found;
}

static int are_words(Py_ssize_t count, PyObject *const *args, Py_ssize_t wanted)
{
    if (count == wanted && PyTuple_Check(args[0]) && PyTuple_Size(args[0]) == WAY)
        return 1;
    PyErr_SetString(PyExc_TypeError, "a link's way and what belongs to it are wanted");
    return 0;
}

/* -- the calls ------------------------------------------------------------------------------------- */

PyDoc_STRVAR(say_doc,
"say(way, line) -> bool\n\n"
"Send a line if that can be done at once.  False: nothing was sent.");

static PyObject *say(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    char *line;
    Py_ssize_t size, done;
    int fd, busy;

    (void)module;
    if (!are_words(count, args, 2) || PyBytes_AsStringAndSize(args[1], &line, &size) < 0)
        return NULL;
    if (size > LONGEST_LINE_BYTES)
        Py_RETURN_FALSE;
    /* The interpreter's lock is held from here on, so the line goes out in one piece. */
    if ((busy = is_true(PyObject_CallMethodObjArgs(PyTuple_GetItem(args[0], SENDING), s_locked, NULL))) != 0)
        return busy < 0 ? NULL : PyBool_FromLong(0);
    if ((fd = fd_of(args[0])) < 0)
        return PyErr_Occurred() ? NULL : PyBool_FromLong(0);
    done = send(fd, line, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done > 0 && done < size)
        shutdown(fd, SHUT_RDWR); /* nobody could go on from half a line: it ends, as if closed over there */
    return PyBool_FromLong(done > 0);
}

PyDoc_STRVAR(hear_doc,
"hear(way, id, answer, limit_ms) -> Grant | None\n\n"
"Wait for the grant of that request, up to limit_ms (-1: no limit), and no longer than a second.  None: what\n"
"came of it is to be waited for with `Link.wait(answer)`, for which it is registered.");

static PyObject *hear(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    char chunk[CHUNK_BYTES];
    struct grant grant;
    PyObject *way, *lines, *mode, *found = NULL;
    const char *id;
    Py_ssize_t id_size;
    long long limit_ms;
    ssize_t size = -1;
    int fd, go, ready = 1, why, collects;

    (void)module;
    if (!are_words(count, args, 4))
        return NULL;
    way = args[0];
    lines = PyTuple_GetItem(way, LINES);
    limit_ms = PyLong_AsLongLong(args[3]);
    if (PyErr_Occurred() || (id = PyUnicode_AsUTF8AndSize(args[1], &id_size)) == NULL || (go = take_reading(way)) < 0)
        return NULL;
    if (!go)
        Py_RETURN_NONE;
    /* Another thread, or a signal's handler, may have read it. */
    if ((go = is_true(PyObject_GetAttr(args[2], s_replies))) != 0 || (go = is_clean(lines)) <= 0 ||
        (fd = fd_of(way)) < 0)
        return let_go_of_reading(way, PyErr_Occurred() ? NULL : Py_NewRef(Py_None));

    Py_BEGIN_ALLOW_THREADS
    if (limit_ms >= 0) {
        struct pollfd one = {fd, POLLIN, 0};
        ready = poll(&one, 1, limit_ms < AWAKE_MS ? (int)limit_ms : AWAKE_MS);
    }
    if (ready > 0)
        size = recv(fd, chunk, sizeof chunk, 0);
    why = errno;
    Py_END_ALLOW_THREADS

    if (ready <= 0 || (size < 0 && (why == EINTR || why == EAGAIN))) /* poll(2) that fails is Link's to tell */
        return let_go_of_reading(way, Py_NewRef(Py_None));
    collects = PyGC_Disable();
    if (size > 0 && is_grant(chunk, chunk + size, id, id_size, &grant) &&
        (mode = PyDict_GetItemString(modes, grant.mode)) != NULL)
        found = registered(&grant, mode, PyTuple_GetItem(way, HOLDERS), args[2]);
    else if (!PyErr_Occurred() && leave(lines, chunk, size > 0 ? size : 0) == 0)
        found = Py_NewRef(Py_None);
    if (collects)
        PyGC_Enable();
    return let_go_of_reading(way, found);
}

PyDoc_STRVAR(peek_doc,
"peek(way) -> bool\n\n"
"Read what was said, without waiting.  True: there is something, or may be, which `Link.look` hands out.");

static PyObject *peek(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    char chunk[CHUNK_BYTES];
    ssize_t size;
    int fd = -1, go, said = 1, collects;

    (void)module;
    if (!are_words(count, args, 1) || (go = take_reading(args[0])) < 0)
        return NULL;
    if (!go)
        Py_RETURN_FALSE; /* who reads hands it out */
    if ((go = is_clean(PyTuple_GetItem(args[0], LINES))) > 0 && (fd = fd_of(args[0])) >= 0) {
        size = recv(fd, chunk, sizeof chunk, MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN)
            said = 0;
        else if (size >= 0 || errno != EINTR) {
            collects = PyGC_Disable();
            leave(PyTuple_GetItem(args[0], LINES), chunk, size > 0 ? size : 0);
            if (collects)
                PyGC_Enable();
        }
    }
    return let_go_of_reading(args[0], PyErr_Occurred() ? NULL : PyBool_FromLong(said));
}

PyDoc_STRVAR(bind_doc, "bind(Grant, Token, modes, no_value, lvb)\n\nWhat grants are made of.");

static PyObject *bind_types(PyObject *module, PyObject *args)
{
    (void)module;
    if (!PyArg_ParseTuple(args, "OOO!SS", &grant_type, &token_type, &PyDict_Type, &modes, &no_value, &no_value_bytes))
        return NULL;
    Py_INCREF(grant_type); /* for as long as the process lives */
    Py_INCREF(token_type);
    Py_INCREF(modes);
    Py_INCREF(no_value);
    Py_INCREF(no_value_bytes);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"say", (PyCFunction)(void (*)(void))say, METH_FASTCALL, say_doc},
    {"hear", (PyCFunction)(void (*)(void))hear, METH_FASTCALL, hear_doc},
    {"peek", (PyCFunction)(void (*)(void))peek, METH_FASTCALL, peek_doc},
    {"bind", bind_types, METH_VARARGS, bind_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_exchange",
    .m_doc = "A link's system calls; see exchange.c.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__exchange(void)
{
    const struct {
        PyObject **name;
        const char *text;
    } names[] = {
        {&s_acquire, "acquire"}, {&s_release, "release"}, {&s_locked, "locked"},   {&s_fileno, "fileno"},
        {&s_chunks, "chunks"},   {&s_state, "_state"},    {&s_numbers, "numbers"}, {&s_undigested, "undigested"},
        {&s_holder, "holder"},   {&s_replies, "replies"},
    };
    size_t one;

    for (one = 0; one < sizeof names / sizeof *names; one++)
        if ((*names[one].name = PyUnicode_InternFromString(names[one].text)) == NULL)
            return NULL;
    return PyModule_Create(&definition);
}
