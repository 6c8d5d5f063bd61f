using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using SQLitePCL;

namespace Drover.Workflows.Sqlite;

/// <summary>
/// How many frames the write-ahead log holds, as SQLite reports it at every commit of one connection. The file's size does not
/// tell it: after a checkpoint the log starts again from its beginning without shrinking.
/// </summary>
internal sealed unsafe class WalLength : IDisposable
{
    private readonly sqlite3 _handle;
    private int* _frames;

    public WalLength(sqlite3 handle)
    {
        _handle = handle;
        _frames = (int*)NativeMemory.AllocZeroed(sizeof(int));
        SetHook(&OnCommit);
    }

    public int Frames => *_frames;

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int OnCommit(nint frames, nint database, byte* name, int count)
    {
        *(int*)frames = count;
        return 0;
    }

    private void SetHook(delegate* unmanaged[Cdecl]<nint, nint, byte*, int, int> hook)
    {
        var set = (delegate* unmanaged[Cdecl]<nint, delegate* unmanaged[Cdecl]<nint, nint, byte*, int, int>, nint, nint>)
            NativeLibrary.GetExport(NativeLibraryChoice.Handle, "sqlite3_wal_hook");
        _ = set(_handle.DangerousGetHandle(), hook, (nint)_frames);
    }

    public void Dispose()
    {
        if (_frames is null)
            return;
        SetHook(null);
        NativeMemory.Free(_frames);
        _frames = null;
    }
}
