using System.Runtime.InteropServices;
using System.Text;

namespace Drover.Chaos;

/// <summary>
/// What really happened, outside the engine's control: one line per effect, in one write(2) on an O_APPEND descriptor, synced
/// before the effect counts as done.
/// </summary>
internal sealed partial class Ledger(string path)
{
    private const int WriteOnly = 1, Create = 0x40, Append = 0x400, CloseOnExec = 0x80000;

    private readonly int _descriptor = Open(path, WriteOnly | Create | Append | CloseOnExec, 0b110_000_000);

    public string GoFile { get; } = path + ".go";

    public void Write(string workflow, string step, int attempt, string note = "-")
    {
        byte[] line = Encoding.UTF8.GetBytes($"{workflow} {step} {attempt} {Environment.ProcessId} {note}\n");
        if (Write(_descriptor, line, line.Length) != line.Length || FSync(_descriptor) != 0)
            throw new IOException($"the ledger {path} cannot be written: error {Marshal.GetLastPInvokeError()}");
    }

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags, int mode);

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    private static partial nint Write(int fd, byte[] bytes, nint count);

    [LibraryImport("libc", EntryPoint = "fsync", SetLastError = true)]
    private static partial int FSync(int fd);
}
