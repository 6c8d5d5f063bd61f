using System.Runtime.InteropServices;
using Drover.Workflows;

namespace Drover.Orchestrator.Settings;

/// <summary>Files that are always either the old or the new bytes, whenever the machine stops (rule C-06).</summary>
public static partial class AtomicFile
{
    private const int ReadOnly = 0;

    /// <summary>Replaces a file: temporary file, fsync, rename, fsync of the folder. Mode 0600; a missing folder is made with 0700.</summary>
    /// <exception cref="DroverException"><see cref="ErrorCode.InvalidInput"/> when the folder cannot be written.</exception>
    public static void Write(string path, ReadOnlySpan<byte> content)
    {
        if (OperatingSystem.IsWindows())
            throw new DroverException(ErrorCode.InvalidInput, "the orchestrator does not run on Windows: use WSL");
        string folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        string temporary = Path.Combine(folder, $".{Path.GetFileName(path)}.{Guid.NewGuid():N}.tmp");
        try
        {
            if (!Directory.Exists(folder))
                Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            try
            {
                using (var file = new FileStream(temporary, new FileStreamOptions
                {
                    Mode = FileMode.CreateNew,
                    Access = FileAccess.Write,
                    UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
                }))
                {
                    file.Write(content);
                    file.Flush(flushToDisk: true);
                }
                File.Move(temporary, path, overwrite: true);
            }
            catch
            {
                File.Delete(temporary);
                throw;
            }
            SyncFolder(folder);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new DroverException(ErrorCode.InvalidInput, $"{path} cannot be written ({e.Message}): make the folder writable", e);
        }
    }

    private static void SyncFolder(string folder)
    {
        int handle = Open(folder, ReadOnly);
        if (handle < 0)
            throw new IOException($"cannot open {folder}: error {Marshal.GetLastPInvokeError()}");
        try
        {
            if (FSync(handle) != 0)
                throw new IOException($"cannot sync {folder}: error {Marshal.GetLastPInvokeError()}");
        }
        finally
        {
            _ = Close(handle);
        }
    }

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "fsync", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int FSync(int handle);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int Close(int handle);
}
