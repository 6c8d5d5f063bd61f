using System.Runtime.InteropServices;

namespace Drover.Workflows.Sqlite;

/// <summary>The few calls that .NET does not offer: advisory locks that block, and that die with the process. Not on Windows.</summary>
internal static partial class LibC
{
    internal const int LockExclusive = 2;
    internal const int LockNonBlocking = 4;
    internal const int Unlock = 8;
    internal const int Interrupted = 4;
    internal const int ReadWrite = 2;

    internal static int CreateFlag => OperatingSystem.IsMacOS() ? 0x200 : 0x40;

    internal static int CloseOnExecFlag => OperatingSystem.IsMacOS() ? 0x1000000 : 0x80000;

    [LibraryImport("libc", EntryPoint = "flock", SetLastError = true)]
    internal static partial int Flock(int fd, int operation);

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Open(string path, int flags, int mode);

    [LibraryImport("libc", EntryPoint = "fchmod", SetLastError = true)]
    internal static partial int FChmod(int fd, int mode);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    internal static partial int Close(int fd);
}
